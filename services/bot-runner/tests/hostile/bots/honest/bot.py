"""No harm: uses both doors, threads, its folder for files. What the walls leave must work, or they prove nothing."""
import asyncio
import json
import os
import ssl
import tempfile
import threading
import zoneinfo

from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    aim = json.loads(ctx.event.text)
    ctx.reply_text(await ctx.db.fetchval("SELECT current_database()"))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["HTTPS_PROXY"].rpartition(":")[2]))
    writer.write(f"CONNECT echo.example.com:{aim['echo']} HTTP/1.1\r\n\r\nhello outside".encode())
    writer.write_eof()
    ctx.reply_text((await reader.read()).decode().rpartition("\r\n")[2])
    writer.close()
    try:
        await ctx.http.get("https://closed.example.org/")
    except OSError as error:
        ctx.reply_text(str(error))
    ctx.reply_text(str(zoneinfo.ZoneInfo("Europe/Berlin")))
    ctx.reply_text(str(len(ssl.create_default_context().get_ca_certs()) > 50))
    thread = threading.Thread(target=ctx.reply_text, args=("from a thread",))
    thread.start()
    thread.join()
    ctx.reply_text(await asyncio.to_thread(lambda: "from a pool"))
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"kept for a moment")
        ctx.reply_text("a file")
    except OSError:
        ctx.reply_text("no file")
