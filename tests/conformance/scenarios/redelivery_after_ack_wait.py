"""An event whose holder shows no sign of life is delivered again, and the holder has lost it."""

from eventbus.delivery import Delivery
from eventbus.errors import SettleError
from tests.conformance.stage import Stage

HISTORY = ("delivery 1", "delivery 2", "the first is lost", "refused: the first", "acked")


async def play(stage: Stage) -> None:
    taken: list[Delivery] = []

    def deliver(delivery: Delivery) -> None:
        taken.append(delivery)
        stage.note("delivery", delivery.deliveries)

    await stage.consume(stage.spec(), deliver)
    await stage.driver.publish(stage.message())
    await stage.until(2)
    first, second = taken
    if first.lost and not second.lost:
        stage.note("the first is lost")
    try:
        await first.ack()
    except SettleError:
        stage.note("refused: the first")
    await second.ack()
    stage.note("acked")
    await stage.wait(1.5)
