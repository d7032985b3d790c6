"""The model card: what a detector is for, its limits, and what is known of its making."""

from dataclasses import dataclass

INTENDED_USE = (
    "Sorting images by how likely they are to be generated, so that people look at the right ones first, and "
    "measuring how well that works on your data."
)

LIMITS_OF_USE = (
    "It was trained for images like those in its training data. If yours differ in subject, camera, size or the way "
    "they were shared, evaluate it on them before you rely on it.",
    "On generators that were not in training, expect it to detect far fewer fakes than these numbers say.",
    "It was not tested on fakes that were modified to deceive it.",
    "A score is not proof: reals are called fake, and fakes are called real, as often as these numbers say.",
    "It sees how an image was made, not whether what it shows is true. A real photograph can mislead, and a "
    "generated image can be harmless.",
    "Make no decision about a person from its output alone: have someone look at the image and at what else is "
    "known.",
    "Where fakes are rarer than in this evaluation, more of the images called fake are real.",
)


@dataclass(frozen=True)
class AuditSummary:
    """The verdict of a data audit (ok, warn or fail) and what it means, in words."""

    verdict: str
    meaning: str


@dataclass(frozen=True)
class ModelCard:
    """What is known of a detector's making; None where unknown.

    Args:
        audit: of its data.
        parameters: of its network.
        training_seconds: since training was last started or resumed.
    """

    audit: AuditSummary | None = None
    parameters: int | None = None
    training_seconds: float | None = None
