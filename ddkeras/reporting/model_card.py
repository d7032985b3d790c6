"""Sentences that go into every model card."""

INTENDED_USE = (
    "To sort images by how likely they were generated, so that people look at the right ones first; and to measure "
    "how well that can be done on your data."
)


LIMITS_OF_USE = (
    "It was made for images like those it was trained on. Where yours differ in subject, camera, size or the way "
    "they were shared, measure it on them before you rely on it.",
    "On generators that were not in training, expect far fewer fakes to be found than the numbers here say.",
    "A fake that someone worked on in order to deceive it was not tried here.",
    "A score is no proof: reals are called fake, and fakes are called real, as often as the numbers here say.",
    "It sees how an image was made, not whether what it shows is true. A real photograph can mislead, and a "
    "generated image can be harmless.",
    "Make no decision about a person by it without a person who looks at the image and at what else is known.",
    "Where fakes are rarer than here, a larger share of what is called fake is real.",
)
