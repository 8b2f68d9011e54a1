# Makes frame.txt from the grammar in src/wire/frame.rs and message.rs, independently of the Rust code.
# python3 frame.py > frame.txt
import struct
import zlib


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def text(raw):
    return varint(len(raw)) + raw


def version(hlc):
    return struct.pack("<QI", hlc, 7)


def deleted(hlc):
    return b"\x00" + version(hlc)


def live(hlc, value, is_text):
    return (b"\x02" if is_text else b"\x01") + version(hlc) + text(value)


def rows(*pairs):
    return varint(len(pairs)) + b"".join(entry + text(key) for key, entry in pairs)


def heads(*clocks):
    return b"".join(struct.pack("<Q", hlc << 40) + version(hlc) for hlc in clocks)


def scan(flags, *rest):
    return bytes([flags]) + struct.pack("<HI", 258, 256) + b"".join(rest)


four = [
    (b"a", live(5, b"xy", True)),
    (b"b\xff", live(0x0102030405060708, b"\x00\xff", False)),
    (b"c", deleted(6)),
    (b"k" * 200, live(7, b"", True)),
]


def compare(after):
    numbers = struct.pack("<HHHQQQIQ", 258, 3, 2, 0x0102030405060708, 1 << 63, 9, 4, 2**64 - 1)
    return numbers + after + text(b"z\xff") + bytes(slices)


slices = bytearray(512)
for index in (0, 9, 4095):
    slices[index // 8] |= 1 << index % 8

messages = [
    ("Ping at 258 ms", 0x01, struct.pack("<Q", 258)),
    ("Write one row", 0x02, b"\x00" + rows(four[0])),
    ("Write four rows, healing", 0x02, b"\x01" + rows(*four)),
    ("Read user:1001", 0x03, b"\x00" + text(b"user:1001")),
    ("Read the digest of a zero byte", 0x03, b"\x01" + text(b"\x00")),
    ("Scan all of shard 258", 0x04, scan(0)),
    ("Scan from the empty key", 0x04, scan(1, text(b""))),
    ("Scan after m", 0x04, scan(2, text(b"m"))),
    ("Scan to z", 0x04, scan(4, text(b"z"))),
    ("Scan with all ends and slices", 0x04, scan(15, text(b"a"), text(b"m\xff"), text(b"z"), bytes(slices))),
    ("Proof", 0x05, bytes(range(32))),
    ("Compare from the first key", 0x06, compare(b"\x00")),
    ("Compare after m", 0x06, compare(b"\x01" + text(b"m"))),
    ("Pong at the end of time", 0x81, struct.pack("<Q", 2**64 - 1)),
    ("Written", 0x82, b""),
    ("Got nothing", 0x84, b"\x03"),
    ("Got a tombstone", 0x84, deleted(5)),
    ("Got text", 0x84, live(5, b"xy", True)),
    ("Got bytes", 0x84, live(5, b"\xff", False)),
    ("Digest", 0x85, version(5) + struct.pack("<I", 0x01020304)),
    ("Digest of nothing", 0x85, bytes(16)),
    ("Page of four rows, more after kkk", 0x86, b"\x01" + text(b"kkk") + rows(*four)),
    ("Page of no rows, the last", 0x86, b"\x00" + rows()),
    ("Same", 0x87, b""),
    ("Heads, more after kkk", 0x88, b"\x01" + text(b"kkk") + b"\x02" + heads(5, 6)),
    ("Heads, none", 0x88, b"\x00\x00"),
]
for code, why in enumerate("Busy Full Closed Unknown Unreadable Unsupported Late".split(), 1):
    messages.append((f"Refused: {why}", 0x83, bytes([code])))
messages.append(("A request of a later version", 0x7F, b""))
messages.append(("An answer of a later version", 0xFF, b""))

for at, (title, kind, body) in enumerate(messages):
    head = struct.pack("<HBBIQI", 0x4B56, 1, kind, len(body), 0x0102030405060700 + at, 2000 + at)
    raw = head + struct.pack("<I", zlib.crc32(head + body)) + body
    print("#", title)
    for start in range(0, len(raw), 32):
        print(raw[start : start + 32].hex(" "))
