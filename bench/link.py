"""A line of limited speed between two programs of this machine, which counts what passes."""

import asyncio
import contextlib
import random
import threading
import time

PIECE = 256 * 1024


class Link:
    """A relay to one address: all answers together pass at `rate` bytes a second, every piece
    arrives `delay` seconds after it was sent, and each connection breaks after about `drop` bytes
    of answers."""

    def __init__(self, target, rate, delay=0, drop=None):
        self.host, port = target.rsplit(":", 1)
        self.port = int(port)
        self.rate = rate
        self.delay = delay
        self.drop = drop
        self.address = None
        self.down = 0
        self.up = 0
        self.drops = 0
        self._dice = random.Random(7)
        self._free_at = 0.0
        self._ready = threading.Event()

    async def _pass_down(self, source, sink):
        left = self._dice.expovariate(1 / self.drop) if self.drop else None
        async with self._late(sink) as send:
            while piece := await source.read(PIECE):
                self.down += len(piece)
                now = time.monotonic()
                begin = max(now, self._free_at)
                self._free_at = begin + len(piece) / self.rate
                # The line is free again when these bytes have passed.
                if self._free_at > now:
                    await asyncio.sleep(self._free_at - now)
                if left is not None and (left := left - len(piece)) < 0:
                    self.drops += 1
                    sink.transport.abort()
                    return
                await send(piece)

    @contextlib.asynccontextmanager
    async def _late(self, sink):
        """What is sent arrives later, in its order; what is on its way is bounded by the line."""
        on_its_way = asyncio.Queue(maxsize=64)

        async def arrive():
            while item := await on_its_way.get():
                due, piece = item
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                sink.write(piece)
                await sink.drain()

        async def send(piece):
            await on_its_way.put((time.monotonic() + self.delay / 2, piece))

        arriving = asyncio.create_task(arrive())
        try:
            yield send
            await on_its_way.put(None)
            await arriving
        finally:
            arriving.cancel()

    async def _pass_up(self, source, sink):
        async with self._late(sink) as send:
            while piece := await source.read(PIECE):
                self.up += len(piece)
                await send(piece)

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(
                self.host, self.port, limit=PIECE
            )
            ways = [
                asyncio.create_task(self._pass_up(reader, far_writer)),
                asyncio.create_task(self._pass_down(far_reader, writer)),
            ]
            # Whoever closes first closes both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            far_writer.close()
        writer.close()

    def _run(self):
        async def main():
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE)
            self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
            server.close()

        asyncio.run(main())

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=10)
