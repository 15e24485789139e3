#!/usr/bin/env python3
"""A TCP proxy on 127.0.0.1 that delivers every byte later: the same delay in each direction, half
of the round trip.

Bytes enter a queue with the time of their delivery, so the delay costs latency and not throughput.
Each connection may have 16 MiB in flight, like a long connection with large windows.

usage: delay.py TARGET_PORT ROUND_TRIP_MS      prints its own port
"""
import asyncio
import socket
import sys

PIECE = 256 << 10
WINDOW = 16 << 20


async def carry(source, sink, delay):
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue(WINDOW // PIECE)

    async def deliver():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                sink.write_eof()
                return
            sink.write(data)
            await sink.drain()

    deliverer = asyncio.create_task(deliver())
    try:
        while True:
            data = await source.read(PIECE)
            await queue.put((loop.time() + delay, data))
            if not data:
                break
        await deliverer
    finally:
        deliverer.cancel()


async def main(target, delay):
    async def connected(reader, writer):
        try:
            # Making a connection takes a round trip as well.
            await asyncio.sleep(2 * delay)
            there, back = await asyncio.open_connection("127.0.0.1", target, limit=4 << 20)
        except OSError:
            writer.close()
            return
        for stream in (writer, back):
            stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(carry(reader, back, delay), carry(there, writer, delay), return_exceptions=True)
        writer.close()
        back.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=4 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) / 2000))
