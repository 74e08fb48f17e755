"""Knocks at sockets of the platform, of neighbours and of the machine."""
import os
import socket

from attempts import attempt, hostile

bot = hostile()


def tcp(host, port, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(3)
        one.connect((host, port))
        return "connected"


INSIDE = {"network": "ECONNREFUSED", "ports": "EACCES"}
attempt("a service of the platform", **INSIDE)(lambda aim: tcp("127.0.0.1", aim.service))
attempt("a service by another loopback address", **INSIDE)(lambda aim: tcp("127.9.9.9", aim.service))
attempt("a service by the address of nothing", **INSIDE)(lambda aim: tcp("0.0.0.0", aim.service))
attempt("a service by a mapped address", network="ECONNREFUSED", ports="EACCES")(lambda aim: tcp("::ffff:127.0.0.1", aim.service, socket.AF_INET6))
attempt("a service by IPv6", network="ECONNREFUSED|EADDRNOTAVAIL", ports="EACCES")(lambda aim: tcp("::1", aim.service, socket.AF_INET6))
attempt("a service by name", **INSIDE)(lambda aim: tcp("localhost", aim.service))
attempt("the tenants' cluster itself", **INSIDE)(lambda aim: tcp("127.0.0.1", aim.cluster))
attempt("a neighbour's way to its database", **INSIDE)(lambda aim: tcp("127.0.0.1", aim.neighbour_postgres))
attempt("a cloud's metadata service", network="ENETUNREACH", ports="EACCES")(lambda aim: tcp("169.254.169.254", 80))
attempt("a private network", network="ENETUNREACH", ports="EACCES")(lambda aim: tcp("10.0.0.1", 443))
attempt("the internet, past the proxy", network="ENETUNREACH", ports="EACCES")(lambda aim: tcp("1.1.1.1", 443))
attempt("a metadata service by IPv6", network="ENETUNREACH|EADDRNOTAVAIL", ports="EACCES")(lambda aim: tcp("fd00:ec2::254", 80, socket.AF_INET6))
attempt("the name server of the machine", calls="EPERM")(lambda aim: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.53", 53)))
attempt("a name that no file knows", network="gaierror|EAI_AGAIN|ECONNABORTED", calls="gaierror")(lambda aim: socket.getaddrinfo("example.com", 443))
attempt("an abstract socket", calls="EPERM")(lambda aim: socket.socket(socket.AF_UNIX).connect("\0" + aim.abstract))
attempt("a socket in a folder", calls="EPERM")(lambda aim: socket.socket(socket.AF_UNIX).connect(aim.unix))
attempt("an abstract socket, by half of a pair", calls="EPERM")(lambda aim: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].connect("\0" + aim.abstract))
attempt("a socket in a folder, by half of a pair", calls="EPERM")(lambda aim: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].connect(aim.unix_datagram))
attempt("a socket in a folder, by half of a connected pair", root="ENOENT", calls="EISCONN|EINVAL|ECONNREFUSED|EPROTOTYPE")(lambda aim: socket.socketpair()[0].connect(aim.unix))
attempt("listen for neighbours", calls="EPERM")(lambda aim: socket.create_server(("127.0.0.1", 0)))
attempt("take the place of its database's door", calls="EPERM")(lambda aim: socket.create_server(("127.0.0.1", 5432)))
for name, family, kind, protocol in (
    ("UDP", 2, 2, 0), ("raw packets", 2, 3, 1), ("all packets", 17, 3, 768), ("netlink", 16, 3, 0), ("virtual machine sockets", 40, 1, 0),
    ("the kernel's ciphers", 38, 5, 0), ("multipath TCP", 2, 1, 262), ("SCTP", 2, 1, 132), ("Bluetooth", 31, 3, 1), ("TIPC", 30, 1, 0), ("KCM", 41, 5, 0), ("XDP", 44, 3, 0),
):
    attempt(f"a socket for {name}", calls="EPERM")(lambda aim, a=(family, kind, protocol): socket.socket(*a))


@attempt("connect by sending", calls="EPERM")
def fast_open(aim):
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM).sendto(b"x", 0x20000000, ("127.0.0.1", aim.service))


@attempt("aim its own connection elsewhere", network="ECONNREFUSED", ports="EACCES")
def unspecified(aim):
    one = socket.create_connection(("127.0.0.1", aim.postgres), 3)
    import ctypes

    from attempts import LIBC, checked

    checked(LIBC.connect(one.fileno(), ctypes.create_string_buffer(16), 16))
    one.connect(("127.0.0.1", aim.service))
    return "connected"


for name, level, option in (("mark packets", 1, 36), ("a larger buffer", 1, 7), ("another device", 1, 25), ("TLS in the kernel", 6, 31), ("see all packets", 1, 26)):
    attempt(f"ask of a socket: {name}", calls="EPERM")(lambda aim, a=(level, option): socket.socket(socket.AF_INET, socket.SOCK_STREAM).setsockopt(*a, b"tls\0\0\0\0\0"))
