# Makes hello.txt from the grammar in src/wire/hello.rs and proof.rs, independently of the Rust code.
# python3 hello.py > hello.txt
import hashlib
import hmac
import struct

secret = b"correct horse battery"
nonces = (0x51EE0000DEADBEEF, 0x77AA000000000004)
nodes = (0x9F86D081884C7D659A2FEAA0C55AD015, 0x18C70000000000000000000000000002)
names = ("a:8081", "b:8081")


def proof(role):
    parts = b"kvpeer/1" + bytes([role]) + struct.pack("<QQ", *nonces)
    parts += b"".join(node.to_bytes(16, "little") for node in nodes)
    assert len(parts) == 57
    return hmac.new(secret, parts, hashlib.sha256).hexdigest()


def fields(end):
    print("Connection: Upgrade")
    print("Upgrade: kvpeer/1")
    print("X-KV-From:", names[end])
    print("X-KV-To:", names[1 - end])
    print(f"X-KV-Node: {nodes[end]:032x}")
    print("X-KV-Core: 3")
    print("X-KV-Topology: 00c0ffee00000001")
    print(f"X-KV-Nonce: {nonces[end]:016x}")
    print("X-KV-Secret: yes")


print("# request")
print("GET /internal/peer HTTP/1.1")
print("Host: 10.0.0.2:8081")
fields(0)
print("X-KV-Fields: n=3;vnodes=10;members=a:8081,b:8081,c:8081")
print()
print("# answer")
print("HTTP/1.1 101 Switching Protocols")
fields(1)
print("X-KV-Cores: 8")
print("X-KV-Shards: 16")
print("X-KV-Proof:", proof(2))
print()
print("# proof of the dialler")
print(proof(1))
