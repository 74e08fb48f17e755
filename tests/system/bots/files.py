"""Reads the files that it gets, and gives one back."""

from loquat import Bot, Context, Document

bot = Bot()


@bot.on(Document)
async def read(ctx: Context, document: Document) -> None:
    file = await ctx.media.download(document)
    answer = await ctx.media.upload(file.data.upper(), "text/plain", name="loud.txt")
    ctx.reply_document(answer, f"{file.size} bytes of {file.mime_type}", name="loud.txt")
