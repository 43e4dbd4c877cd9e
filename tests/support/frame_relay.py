"""A TCP relay between two workers that knows where ZeroMQ's messages begin and end, and does harm.

FrameRelay(host, port, target) listens at host:port and leads to target:port; a worker that says
--advertise host --data-ports port-port is reached through it. Counted are the messages of both
directions that are long enough to be frames of ours, a connection's greeting included. While the
test has set them:

  flip_every   one random bit in the body of every so-manieth message is turned over
  cut_next     the connection that carries the next message is closed in its middle, once
  swallow_next the next message vanishes, once
"""
import random
import socket
import threading

GREETING_BYTES = 64  # ZMTP 3: before the first frame
FRAME_BYTES_MIN = 64  # a header of ours
LONG, COMMAND = 2, 4  # flags of a ZMTP frame
BODY_SKIPPED = 24  # with CURVE: the name of the message and its nonce


class Closed(Exception):
    pass


def read(source, count):
    data = bytearray()
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            raise Closed
        data += piece
    return bytes(data)


class FrameRelay:
    def __init__(self, host, port, target, seed=1):
        self.address, self.target = (host, port), (target, port)
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.flip_every = None
        self.cut_next = self.swallow_next = False
        self.messages = self.flipped = self.cut = self.swallowed = self.connections = 0
        self.listener = socket.create_server(self.address)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client, server):
        with client, server:
            pumps = []
            for ends in ((client, server), (server, client)):
                ends[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pumps.append(threading.Thread(target=self._pump, args=ends, daemon=True))
                pumps[-1].start()
            for pump in pumps:
                pump.join()

    def _harm(self, body):
        """What becomes of a message: its bytes, or None (it vanishes); Closed cuts."""
        with self.lock:
            self.messages += 1
            if self.cut_next:
                self.cut_next = False
                self.cut += 1
                raise Closed
            if self.swallow_next:
                self.swallow_next = False
                self.swallowed += 1
                return None
            if self.flip_every and self.messages % self.flip_every == 0:
                self.flipped += 1
                body = bytearray(body)
                bit = self.random.randrange(BODY_SKIPPED * 8, len(body) * 8)
                body[bit // 8] ^= 1 << bit % 8
        return bytes(body)

    def _pump(self, source, target):
        try:
            for _ in range(GREETING_BYTES):  # each end waits for the other's first ones
                target.sendall(read(source, 1))
            while True:
                head = read(source, 1)
                head += read(source, 8 if head[0] & LONG else 1)
                body = read(source, int.from_bytes(head[1:], "big"))
                if not head[0] & COMMAND and len(body) >= FRAME_BYTES_MIN:
                    body = self._harm(body)
                if body is not None:
                    target.sendall(head + body)
        except (OSError, Closed):
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
