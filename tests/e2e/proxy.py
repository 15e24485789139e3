"""A network that breaks on request: passes TCP connections on to a server, counts HTTP requests,
and can be cut.

    with Proxy(server.port) as proxy:
        proxy.cut()                       # connections break, new ones are refused
        proxy.mend()
        proxy.watch(on_request, on_answer)    # called with a number and a request line; True: it goes no further

A request is recognised by the first bytes after an answer: the clients of these tests do not
pipeline.
"""

import contextlib
import re
import socket
import threading

REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")


class Proxy:
    def __init__(self, port):
        self.target = port
        self.lock = threading.Lock()
        self.pairs = []
        self.closed = False
        self.port = self.listener = None
        self.watch()

    def __enter__(self):
        self.mend()
        return self

    def __exit__(self, *_):
        self.closed = True
        self.cut()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def watch(self, on_request=None, on_answer=None):
        """Counts requests from 1 on; `on_request(number, line)` and `on_answer(number, line)`
        decide whether a request ends here.
        """
        with self.lock:
            self.count = 0
            self.lines = []
            self.on_request = on_request or (lambda number, line: False)
            self.on_answer = on_answer or (lambda number, line: False)

    def mend(self):
        """Takes connections, always at the same port."""
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port or 0))
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        """Refuses connections and breaks those that there are."""
        # Closing alone does not wake a thread in accept.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            hang_up(*pair)

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self.lock:
                self.pairs.append((client, server))
            current = {"number": 0, "line": "", "answered": True}
            for work in (self.up, self.down):
                threading.Thread(target=work, args=(client, server, current), daemon=True).start()

    def up(self, client, server, current):
        while data := receive(client):
            found = REQUEST.match(data) if current["answered"] else None
            if found:
                with self.lock:
                    self.count += 1
                    number, line = self.count, f"{found[1].decode()} {found[2].decode()}"
                    self.lines.append(line)
                    stop = self.on_request
                current.update(number=number, line=line, answered=False)
                if stop(number, line):
                    break
            try:
                server.sendall(data)
            except OSError:
                break
        hang_up(client, server)

    def down(self, client, server, current):
        while data := receive(server):
            if not current["answered"] and not data.startswith(b"HTTP/1.1 100"):
                current["answered"] = True
                if self.on_answer(current["number"], current["line"]):
                    break
            try:
                client.sendall(data)
            except OSError:
                break
        hang_up(client, server)


def receive(connection):
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


def hang_up(*connections):
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
