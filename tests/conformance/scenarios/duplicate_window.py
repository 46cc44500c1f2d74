"""An id is stored once within the duplicate window, and again after it."""

from tests.conformance.stage import Made, Stage

HISTORY = (
    "stored at 1, duplicate: False",
    "stored at 1, duplicate: True",
    "stored at 2, duplicate: False",
)


async def play(stage: Stage) -> None:
    async with stage.service() as events:
        for pause in (0.0, 3.0, 0.0):
            receipt = await events.emit(Made(), id="same")
            stage.note(f"stored at {receipt.sequence}, duplicate: {receipt.duplicate}")
            await stage.wait(pause)
