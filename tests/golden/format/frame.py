# Makes frame.txt from the grammar in src/store/format/frame.rs, independently of the Rust code.
# python3 frame.py > frame.txt
import struct
import zlib

node = bytes(range(16))
salt, ident = 0x1122334455667788, 2


def line(title, raw):
    print("#", title)
    for at in range(0, len(raw), 16):
        print(raw[at : at + 16].hex(" "))


def crc(seed, raw):
    return zlib.crc32(struct.pack("<Q", seed) + raw)


def group(kind, seq, durable, prev, records, body):
    body_crc = crc(salt ^ seq, body)
    head = struct.pack("<IIQQIIQB7x", body_crc, len(body), seq, durable, prev, records, ident, kind)
    return struct.pack("<II", 0x47525031, crc(salt, head)) + head + body, body_crc


covered = b"KVWALSEG" + struct.pack("<HHI", 1, 3, 0) + node + struct.pack("<QQQQQ", ident, 1 << 20, salt, 8, 1)
line("header: WAL, shard 3, id 2, 1 MiB, first_seq 8, prev_id 1", covered + struct.pack("<I", zlib.crc32(covered)))
raw, prev = group(1, 8, 7, 0, 2, b"abc")
line('DATA 8, two records, body "abc"', raw)
raw, prev = group(1, 9, 8, prev, 1, b"d")
line('DATA 9, one record, body "d"', raw)
raw, prev = group(3, 9, 9, prev, 0, b"")
line("ROLL 9", raw)
