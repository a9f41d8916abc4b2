"""A chat by Chainlit with what `scratchbook serve` serves, over its API as any client would.

    scratchbook serve base &
    chainlit run scratchbook/serving/chainlit_app.py --port 8001

Needs the extra `chainlit`. SCRATCHBOOK_URL says where the server is, if not on this machine's port
8000, and SCRATCHBOOK_API_KEY the key, if it has one.

Chapter:  chapters/07c_serving_and_chat.ipynb
"""

from __future__ import annotations

import os


def register() -> None:
    """Tell Chainlit what to do when a chat begins, and with each message.

    Chapter:  chapters/07c_serving_and_chat.ipynb
    """
    import chainlit as cl
    from chainlit.input_widget import Select, Slider

    def connect():
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=os.environ.get("SCRATCHBOOK_URL", "http://127.0.0.1:8000/v1"),
                           api_key=os.environ.get("SCRATCHBOOK_API_KEY") or "none")

    @cl.on_chat_start
    async def begin() -> None:
        client = connect()
        models = [model async for model in client.models.list()]
        room = min(model.max_model_len for model in models)  # for a question and its answer
        cl.user_session.set("client", client)
        await cl.ChatSettings([
            Select(id="model", label="Model", values=[each.id for each in models],
                   initial_index=0),
            Slider(id="temperature", label="Temperature", initial=0.8, min=0, max=2, step=0.1),
            Slider(id="max_tokens", label="New tokens at most", initial=min(128, room // 2), min=1,
                   max=room),
        ]).send()

    @cl.on_message
    async def answer(message: cl.Message) -> None:
        wanted, reply = cl.user_session.get("chat_settings"), cl.Message("")
        chunks = await cl.user_session.get("client").chat.completions.create(
            messages=cl.chat_context.to_openai(), stream=True, model=wanted["model"],
            temperature=wanted["temperature"], max_tokens=int(wanted["max_tokens"]))
        async with chunks:  # Chainlit's Stop leaves here, and the server stops writing
            async for chunk in chunks:
                await reply.stream_token(chunk.choices[0].delta.content or "")
        await reply.update()


if not __name__.startswith("scratchbook."):  # Chainlit runs this file by its path
    register()
