# Makes block.txt, bloom.txt and table.txt from the grammars in src/store/format/{block,bloom,index,table}.rs,
# independently of the Rust code. Run in this folder: python3 table.py (needs python-xxhash).
import struct
import zlib

import xxhash

MASK = (1 << 64) - 1


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def prefixed(raw):
    return varint(len(raw)) + raw


def write(name, title, parts):
    with open(name, "w") as file:
        for text in title:
            print("#", text, file=file)
        for text, raw in parts:
            print("#", text, file=file)
            for at in range(0, len(raw), 16):
                print(raw[at : at + 16].hex(" "), file=file)


def join(parts):
    return b"".join(raw for _, raw in parts)


# A row is (key, (hlc, origin), value or None, text, late).
def entry(row, base, shared):
    key, version, value, text, late = row
    other_origin = version[1] != base[1]
    meta = (value is not None) | text << 1 | late << 2 | other_origin << 3
    delta = (version[0] - base[0] + (1 << 63)) % (1 << 64) - (1 << 63)
    raw = varint(shared) + varint(len(key) - shared) + varint(len(value or b"")) + bytes([meta])
    raw += varint((delta << 1 ^ delta >> 63) & MASK)
    if other_origin:
        raw += varint(version[1])
    said = "deleted" if value is None else f"value {value!r}"
    flags = text * " text" + late * " late"
    title = f"entry {key!r} version {version[0]}.{version[1]} {said}{flags}"
    return title, raw + key[shared:] + (value or b"")


def block(rows):
    base = rows[0][1]
    parts = [("base version", struct.pack("<QI", *base))]
    restarts, before = b"", b""
    for i, row in enumerate(rows):
        shared = 0
        if i % 16 == 0:
            restarts += struct.pack("<I", len(join(parts)))
        else:
            while before[shared : shared + 1] == row[0][shared : shared + 1] != b"":
                shared += 1
        parts.append(entry(row, base, shared))
        before = row[0]
    count = len(restarts) // 4
    return parts + [("restart points", restarts + struct.pack("<I", count))]


def trailer(payload, kind, table, offset):
    end = struct.pack("<BBI", kind, 0, len(payload))
    return end + struct.pack("<I", zlib.crc32(struct.pack("<QQ", table, offset) + payload + end))


def bloom(keys, lines):
    out = bytearray(64 * lines)
    for key in keys:
        product = (xxhash.xxh3_128_intdigest(key) & MASK) * 0x9E3779B97F4A7C15 & MASK
        hashed = (product << 32 | product >> 32) & MASK
        line = hashed * lines >> 64
        mixed = hashed * 0xD6E8FEB86659FD93 & MASK
        for i in range(6):
            bit = mixed >> (55 - 9 * i) & 511
            out[64 * line + bit // 8] |= 1 << bit % 8
    return bytes(out)


def table(number, blocks, keys):
    parts, rows, at = [], b"", 0
    for group in blocks:
        body = block(group)
        end = trailer(join(body), 1, number, at)
        parts += body + [("trailer: type data, raw, length, crc", end)]
        dead = sum(row[2] is None for row in group)
        rows += prefixed(b"") + varint(len(join(body) + end)) + varint(len(group)) + varint(dead)
        at = len(join(parts))
    handles = b""
    for kind, title, payload in [
        (2, 'index: two blocks, prefix "b" (the separator of block 1), two rows', struct.pack("<I", 2) + prefixed(b"b") + rows),
        (3, "filter: one line", struct.pack("<I", 1) + bloom(keys, 1)),
        (
            4,
            'props: 3 entries, 1 tombstone, versions 200.9 .. 300.7, "apple" .. "banana"',
            varint(3) + varint(1) + struct.pack("<QIQI", 200, 9, 300, 7) + prefixed(b"apple") + prefixed(b"banana"),
        ),
    ]:
        end = trailer(payload, kind, number, at)
        handles += struct.pack("<QI", at, len(payload + end))
        parts += [(title, payload), ("trailer", end)]
        at = len(join(parts))
    footer = b"KVTABLE\0" + struct.pack("<QQQ", 1, number, 8192) + handles
    crc = zlib.crc32(footer.ljust(4092, b"\0"))
    return parts + [("footer", footer), ("its last four bytes: crc", struct.pack("<I", crc))]


rows = [
    (b"a", (258, 7), b"1", True, False),
    (b"ab", (300, 7), None, False, True),
    (b"ac", (200, 9), b"\xff\x00", False, False),
]
rows += [(b"b%02d" % i, (258 + i, 7), b"v", True, False) for i in range(14)]
write("block.txt", ["A data block of 17 entries, so with two restart points. Made by table.py."], block(rows))

keys = [b"", b"a", b"user:1001", b"\xff\x00", b"key-4", b"key-5"]
lines = bloom(keys, 3)
write(
    "bloom.txt",
    ['The filter, three lines, of the keys "", "a", "user:1001", ff 00, "key-4", "key-5". Made by table.py.'],
    [("lines", struct.pack("<I", 3))] + [(f"line {i}", lines[64 * i : 64 * i + 64]) for i in range(3)],
)

rows = [
    (b"apple", (258, 7), b"red", True, False),
    (b"apricot", (300, 7), None, False, True),
    (b"banana", (200, 9), b"\xff\x00", False, False),
]
write(
    "table.txt",
    [
        'Table 77: "apple" = "red", "apricot" deleted, "banana" = ff 00; two entries per block, 10 bits per key.',
        "Made by table.py. Zeros up to byte 4096 and from 4164 to 8188 left out.",
    ],
    table(77, [rows[:2], rows[2:]], [row[0] for row in rows]),
)
