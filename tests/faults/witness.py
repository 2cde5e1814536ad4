"""Writes down what a real Asterisk sends, in a session of its own: witness.py PORT USER SECRET FILE

A line for each numbered event, separated by tabs: tag, number, SequenceNumber (`-` without one), microseconds since 1970.
Says "session" at each login. Logs in again whenever Asterisk is gone.
"""
import re
import socket
import sys
import time

EVENT = re.compile(
    rb"(?:^|\n)Timestamp: (?P<time>[0-9.]+)\r\n(?:.*\n)*?"
    rb"(?:SequenceNumber: (?P<number>[0-9]+)\r\n(?:.*\n)*?)?UserEvent: Flood\r\n(?:.*\n)*?Tag: (?P<tag>\S+)\r\nSeq: (?P<n>[0-9]+)\r")


def micros(stamp):
    seconds, _, fraction = stamp.decode().partition(".")
    return int(seconds) * 1_000_000 + int((fraction + "000000")[:6])


def session(port, user, secret, file):
    stream = socket.create_connection(("127.0.0.1", port), timeout=1)
    stream.settimeout(None)
    stream.sendall(f"Action: Login\r\nUsername: {user}\r\nSecret: {secret}\r\nEvents: on\r\n\r\n".encode())
    rest = b""
    while True:
        chunk = stream.recv(1 << 20)
        if not chunk:
            return
        *blocks, rest = (rest + chunk).split(b"\r\n\r\n")
        for block in blocks:
            if b"Authentication accepted" in block:
                print("session", flush=True)
            if b"UserEvent: Flood" not in block:
                continue
            found = EVENT.search(block + b"\r\n")
            number = found["number"].decode() if found["number"] else "-"
            file.write(f"{found['tag'].decode()}\t{int(found['n'])}\t{number}\t{micros(found['time'])}\n")
        file.flush()


port, user, secret, path = sys.argv[1:]
with open(path, "a", buffering=1 << 20) as file:
    while True:
        try:
            session(int(port), user, secret, file)
        except OSError:
            pass
        time.sleep(0.02)
