"""A line of limited speed between two programs of this machine, which counts what passes."""

import asyncio
import contextlib
import threading
import time

PIECE = 256 * 1024


class Link:
    """A relay to one address: all answers together pass at `rate` bytes a second."""

    def __init__(self, target, rate):
        self.host, port = target.rsplit(":", 1)
        self.port = int(port)
        self.rate = rate
        self.address = None
        self.down = 0
        self.up = 0
        self._free_at = 0.0
        self._ready = threading.Event()

    async def _pass_down(self, source, sink):
        while piece := await source.read(PIECE):
            self.down += len(piece)
            now = time.monotonic()
            begin = max(now, self._free_at)
            self._free_at = begin + len(piece) / self.rate
            # The line is free again when these bytes have passed.
            if self._free_at > now:
                await asyncio.sleep(self._free_at - now)
            sink.write(piece)
            await sink.drain()

    async def _pass_up(self, source, sink):
        while piece := await source.read(PIECE):
            self.up += len(piece)
            sink.write(piece)
            await sink.drain()

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
