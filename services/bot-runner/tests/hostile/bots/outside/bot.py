"""Asks the proxy for what it must not give."""
import socket

from attempts import attempt, hostile

bot = hostile()


def through(authority, then=b""):
    def ask(aim):
        with socket.create_connection(("127.0.0.1", aim.egress), 5) as one:
            one.sendall(f"CONNECT {authority.format(port=aim.service)} HTTP/1.1\r\n\r\n".encode() + then)
            answer = one.recv(4096).decode(errors="replace")
        return "nothing" if answer.startswith(("HTTP/1.1 403", "HTTP/1.1 502")) else answer

    return ask


for authority in (
    "169.254.169.254:80", "[fd00:ec2::254]:80", "100.100.100.200:80", "168.63.129.16:80", "127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "[64:ff9b::7f00:1]:443",
    "2130706433:80", "0x7f000001:80", "0177.0.0.1:80", "127.1:80", "0:80", "localhost:80", "metadata:80", "10.0.0.1:443", "[fe80::1%lo]:80",
    "user@127.0.0.1:80", "public.example.com@127.0.0.1:80", "public.example.com:22", "public.example.com:5432", "not-allowed.example.org:443",
):
    attempt(f"CONNECT {authority}", egress="nothing")(through(authority))
attempt("a name that stands for the inside", egress="nothing")(through("inside.example.com:443"))
attempt("a name that stands for both", egress="nothing")(through("both.example.com:443"))


@attempt("a name that is public first and private then (DNS rebinding)", egress="nothing")
def rebinding(aim):
    answers = [through("rebinding.example.com:443")(aim) for _ in range(3)]
    return answers[-1] if any(a != "nothing" and "502" not in a for a in answers[1:]) else "nothing"


@attempt("a plain request", egress="nothing")
def plain(aim):
    with socket.create_connection(("127.0.0.1", aim.egress), 5) as one:
        one.sendall(f"GET http://127.0.0.1:{aim.service}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = one.recv(4096).decode()
    return "nothing" if answer.startswith("HTTP/1.1 405") else answer


@attempt("a second request in the first one's wake", egress="nothing")
def smuggled(aim):
    return through("not-allowed.example.org:443", f"CONNECT 127.0.0.1:{aim.service} HTTP/1.1\r\n\r\n".encode())(aim)


@attempt("five hundred connections to the proxy", egress="nothing", limits="EMFILE")
def many(aim):
    opened = []
    try:
        for _ in range(500):
            one = socket.create_connection(("127.0.0.1", aim.egress), 0.2)
            opened.append(one)
    except TimeoutError:
        return "nothing"
    finally:
        for one in opened:
            one.close()
    return "all taken"
