"""A TCP relay that breaks connections after so many bytes from the server.

cut_relay.py HOST TARGET PORT… -- CUT_PORT CUT…: listens on HOST at every PORT and at CUT_PORT, leads
to the same ports of TARGET, and resets connection i to CUT_PORT once CUT[i] bytes came through it.
"""
import itertools
import socket
import struct
import sys
import threading


def pump(source, target, limit):
    """Moves bytes until the end, or until `limit` of them went through."""
    left = limit
    try:
        while left != 0:
            data = source.recv(65536 if left is None else min(65536, left))
            if not data:
                break
            target.sendall(data)
            left = None if left is None else left - len(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(host, target, port, limits):
    with socket.create_server((host, port)) as listener:
        for limit in limits:
            client, _ = listener.accept()
            server = socket.create_connection((target, port))
            threading.Thread(target=pump, args=(client, server, None), daemon=True).start()
            threading.Thread(target=pump, args=(server, client, limit), daemon=True).start()


def main():
    host, target, *rest = sys.argv[1:]
    at = rest.index("--")
    cut_port, *cuts = map(int, rest[at + 1:])
    jobs = [(int(port), itertools.repeat(None)) for port in rest[:at]]
    jobs.append((cut_port, itertools.chain(cuts, itertools.repeat(None))))
    threads = [threading.Thread(target=serve, args=(host, target, *job)) for job in jobs]
    for thread in threads:
        thread.start()
    print("relaying", flush=True)
    for thread in threads:
        thread.join()


main()
