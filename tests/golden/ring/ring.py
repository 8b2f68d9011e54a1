# Makes ring.txt from the rules at the top of src/cluster/ring.rs, independently of the Rust code.
# Needs the reference hash (pip install xxhash). python3 ring.py > ring.txt
import bisect
import struct

import xxhash

SLICES = 4096


def token(name, i):
    return xxhash.xxh3_64_intdigest(name.encode() + b"\0" + struct.pack("<I", i))


def two_passes(order, zone, copies):
    chosen, used = [], set()
    for name in order:
        if len(chosen) < copies and zone[name] not in used:
            chosen.append(name)
            used.add(zone[name])
    for name in order:
        if len(chosen) < copies and name not in chosen:
            chosen.append(name)
    return chosen


def topology(members, copies, vnodes):
    zone = dict((m.split("/") + [""])[:2] for m in members)
    names = sorted(zone)
    copies = min(copies, len(names))
    fields = "members=%s;zones=%s;n=%d;vnodes=%d" % (
        ",".join(names),
        ",".join(zone[n] for n in names),
        copies,
        vnodes,
    )
    print("topology", fields)
    canonical = "ring=1;slices=4096;hash=xxh3;" + fields
    print("digest %016x" % xxhash.xxh3_64_intdigest(canonical.encode()))
    ring = sorted((token(n, i), n) for n in names for i in range(vnodes))
    keys = [t for t, _ in ring]
    table = b""
    for s in range(SLICES):
        at = bisect.bisect_left(keys, s << 52)
        order = [n for _, n in ring[at:] + ring[:at]]
        chosen = two_passes(order, zone, copies)
        table += b"".join(struct.pack("<H", names.index(n)) for n in chosen)
        if s % 512 in (0, 511):
            print("slice", s, *chosen)
    print("table %016x" % xxhash.xxh3_64_intdigest(table))


print("# token <name> <i> <hex>")
for name in ["localhost:8081", "localhost:8082", "a", "[::1]:8083"]:
    for i in [0, 1, 9, 300]:
        print("token", name, i, "%016x" % token(name, i))
print("# topology <fields>, its digest, the members of some slices, xxh3 of all of them as 16-bit numbers")
topology(["solo:1"], 3, 10)
topology(["localhost:8081", "localhost:8082", "localhost:8083"], 3, 10)
topology(["n%d:80" % i for i in range(12)], 3, 10)
topology(["n%d:80/z%d" % (i, i % 3) for i in range(9)], 3, 10)
topology(["n%d:80/z%d" % (i, i % 2) for i in range(7)], 3, 16)
topology(["n%d:80%s" % (i, "/far" if i == 4 else "") for i in range(6)], 4, 1)
