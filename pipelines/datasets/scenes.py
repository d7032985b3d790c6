"""Simple scenes for the sample collection: one face, animal or vehicle in front of a background, in linear light."""

import numpy as np
from PIL import Image

CLASSES = ("human_faces", "animals", "vehicles")

Planes = np.ndarray  # float32, (3, height, width): red, green, blue
Plane = np.ndarray  # float32, (height, width)

_WHITE = np.full((3, 1, 1), 0.7, np.float32)


class Canvas:
    """Linear light to paint on, (3, pixels, pixels), with a background and a random pose.

    Coordinates are those of the object: the image reaches from about -1 to 1, x to the right and y down. A shape is
    its coverage of every pixel: float32, (pixels, pixels), 0 outside to 1 inside.
    """

    def __init__(self, pixels: int, rng: np.random.Generator) -> None:
        self.pixels, self.rng = pixels, rng
        bright, dark = rng.uniform(0.3, 0.5), rng.uniform(0.08, 0.16)
        self.subject, self.ground = (bright, dark) if rng.random() < 0.5 else (dark, bright)
        self._pose()
        self._fill_background()

    def _pose(self) -> None:
        rng = self.rng
        across = (np.arange(self.pixels, dtype=np.float32) + 0.5) * (2 / self.pixels) - 1
        x, y = across[None, :] - rng.uniform(-0.15, 0.15), across[:, None] - rng.uniform(-0.1, 0.1)
        turn, scale = rng.uniform(-0.2, 0.2), rng.uniform(0.75, 1.0)
        mirror = rng.choice([-1, 1])
        self.x = ((x * np.cos(turn) + y * np.sin(turn)) * (mirror / scale)).astype(np.float32)
        self.y = ((y * np.cos(turn) - x * np.sin(turn)) / scale).astype(np.float32)
        self.edge = 2 / (self.pixels * scale)  # width of a pixel
        lamp = rng.uniform(0, 2 * np.pi)
        self.shade = 1 + 0.25 * (np.cos(lamp) * self.x + np.sin(lamp) * self.y) + 0.08 * self.texture(40)

    def _fill_background(self) -> None:
        slope = self.y * self.rng.uniform(0.2, 0.5) + self.x * self.rng.uniform(-0.25, 0.25) + 0.5
        top, bottom, spot = (self.colour(self.ground) for _ in range(3))
        self.light = top + slope.clip(0, 1) * (bottom - top)
        clouds = (self.texture(4) + 0.5 * self.texture(9)).clip(0, 1)
        self.light += 0.5 * clouds * (spot - self.light)
        self.light *= 1 + 0.08 * self.texture(40)

    def colour(self, brightness: float) -> Planes:
        """Draw a colour: float32, (3, 1, 1). All objects share this palette."""
        hue, saturation = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(0.1, 0.55)
        wheel = 1 + saturation * np.cos(hue + np.arange(3)[:, None, None] * (2 * np.pi / 3))
        return (brightness * self.rng.uniform(0.8, 1.25) * wheel).astype(np.float32)

    def texture(self, cells: int) -> Plane:
        """Smooth noise with so many cells across: about -1 to 1."""
        noise = self.rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        return np.asarray(Image.fromarray(noise).resize((self.pixels, self.pixels), Image.Resampling.BICUBIC))

    def paint(self, shape: Plane, colour: Planes) -> None:
        """Cover a shape with a colour, (3, 1, 1), under the light of the scene."""
        rows = np.flatnonzero(shape.any(1))
        if rows.size:
            part = np.s_[..., rows[0] : rows[-1] + 1, :]  # most shapes are small
            self.light[part] += shape[part] * (colour * self.shade[part] - self.light[part])

    def ellipse(self, x: float, y: float, width: float, height: float) -> Plane:
        """Coverage of an ellipse with these centre and semi-axes, from 0 to 1."""
        radius = np.hypot((self.x - x) / width, (self.y - y) / height)
        return self.coverage((radius - 1) * min(width, height))

    def limb(self, start: tuple[float, float], end: tuple[float, float], radius: float) -> Plane:
        """A line with round ends."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        px, py = self.x - start[0], self.y - start[1]
        along = ((px * dx + py * dy) / (dx * dx + dy * dy)).clip(0, 1)
        return self.coverage(np.hypot(px - along * dx, py - along * dy) - radius)

    def polygon(self, *corners: tuple[float, float]) -> Plane:
        """A convex polygon, its corners clockwise."""
        distance = np.full_like(self.x, -np.inf)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            outward = (self.x - x0) * (y1 - y0) - (self.y - y0) * (x1 - x0)
            np.maximum(distance, outward / np.hypot(x1 - x0, y1 - y0), out=distance)
        return self.coverage(distance)

    def coverage(self, distance: Plane) -> Plane:
        """The shape of a signed distance, negative inside."""
        return (0.5 - distance / self.edge).clip(0, 1)


def draw_scene(category: str, pixels: int, rng: np.random.Generator) -> Planes:
    """Draw one object in front of a background.

    Args:
        category: one of CLASSES.
        pixels: width and height.
        rng: source of pose, shape and colours.

    Returns:
        Linear light: float32, (3, pixels, pixels), from 0 to 1.
    """
    canvas = Canvas(pixels, rng)
    {"human_faces": _draw_face, "animals": _draw_animal, "vehicles": _draw_vehicle}[category](canvas, rng)
    return canvas.light.clip(0, 1)


def _draw_face(canvas: Canvas, rng: np.random.Generator) -> None:
    skin, shirt = canvas.colour(canvas.subject), canvas.colour(canvas.ground)
    hair = canvas.colour(canvas.subject) * rng.uniform(0.25, 0.5)
    width, height = rng.uniform(0.44, 0.54), rng.uniform(0.56, 0.66)
    canvas.paint(canvas.ellipse(0, -0.12, width + 0.1, height + rng.uniform(0.0, 0.25)), hair)
    canvas.paint(canvas.ellipse(0, 1.2, 0.85, 0.45), shirt)
    canvas.paint(canvas.limb((0, 0.4), (0, 0.8), 0.19), 0.8 * skin)
    for side in (-1, 1):
        canvas.paint(canvas.ellipse(side * width, 0.05, 0.08, 0.14), 0.85 * skin)
    head = canvas.ellipse(0, 0, width, height)
    canvas.paint(head, skin)
    hairline = canvas.y + rng.uniform(-0.6, 0.6) * canvas.x + rng.uniform(0.28, 0.38)
    canvas.paint(head * canvas.coverage(hairline), hair)
    _draw_features(canvas, rng, skin, hair)


def _draw_features(canvas: Canvas, rng: np.random.Generator, skin: Planes, hair: Planes) -> None:
    gaze, apart, open_ = rng.uniform(-0.08, 0.08), rng.uniform(0.18, 0.23), rng.uniform(0.05, 0.08)
    iris = canvas.colour(0.2)
    for x in (gaze - apart, gaze + apart):
        canvas.paint(canvas.limb((x - 0.1, -0.17), (x + 0.1, -0.19), 0.025), hair)
        canvas.paint(canvas.ellipse(x, -0.05, 0.11, open_), _WHITE)
        canvas.paint(canvas.ellipse(x + gaze / 4, -0.05, 0.055, min(open_, 0.055)), iris)
        canvas.paint(canvas.ellipse(x + gaze / 4, -0.05, 0.025, 0.025), 0.1 * iris)
    canvas.paint(canvas.limb((gaze, -0.02), (1.4 * gaze, 0.16), 0.03), 0.75 * skin)
    canvas.paint(canvas.ellipse(1.4 * gaze, 0.17, 0.075, 0.045), 0.65 * skin)
    wide, smile = rng.uniform(0.14, 0.22), rng.uniform(0.0, 0.06)
    lips = 0.5 * skin * np.array([1.2, 0.7, 0.8], np.float32)[:, None, None]
    for side in (-1, 1):
        canvas.paint(canvas.limb((gaze, 0.36), (gaze + side * wide, 0.36 - smile), 0.035), lips)


def _draw_animal(canvas: Canvas, rng: np.random.Generator) -> None:
    fur = canvas.colour(canvas.subject)
    long, deep, leg = rng.uniform(0.42, 0.55), rng.uniform(0.2, 0.28), rng.uniform(0.06, 0.085)
    for x in (-long + 0.14, -long + 0.3, long - 0.3, long - 0.14):
        far = abs(x) < long - 0.2  # the legs on the far side lie in shadow
        foot = (x + rng.uniform(-0.12, 0.12), rng.uniform(0.62, 0.72))
        canvas.paint(canvas.limb((x, 0.15), foot, leg), fur * (0.6 if far else 0.9))
    tip = (-long - rng.uniform(0.2, 0.35), rng.uniform(-0.4, 0.25))
    canvas.paint(canvas.limb((-long + 0.08, 0.02), tip, 0.045), 0.9 * fur)
    head = (long + rng.uniform(0.05, 0.15), rng.uniform(-0.45, -0.25))
    canvas.paint(canvas.limb((long - 0.15, 0), head, 0.14), fur)
    body = canvas.ellipse(0, 0.08, long, deep)
    canvas.paint(body, fur)
    canvas.paint(body * _coat(canvas, rng), canvas.colour(canvas.subject) * 0.35)
    _draw_muzzle(canvas, rng, head, fur)


def _coat(canvas: Canvas, rng: np.random.Generator) -> Plane:
    """Where the fur is dark: spots, stripes, or patches."""
    kind = rng.integers(3)
    if kind == 0:
        return (4 * canvas.texture(22) - 1.2).clip(0, 1)
    if kind == 1:
        return (3 * np.sin(rng.uniform(22, 34) * canvas.x + 2 * canvas.texture(6))).clip(0, 1)
    return (6 * canvas.texture(7) - 1).clip(0, 1)


def _draw_muzzle(canvas: Canvas, rng: np.random.Generator, head: tuple[float, float], fur: Planes) -> None:
    x, y = head
    ear = rng.uniform(0.14, 0.28)
    for left in (-0.17, 0.02):
        corners = (x + left, y - 0.06), (x + left + 0.04, y - 0.12 - ear), (x + left + 0.15, y - 0.08)
        canvas.paint(canvas.polygon(*corners), 0.7 * fur)
    canvas.paint(canvas.ellipse(x, y, 0.2, 0.17), fur)
    canvas.paint(canvas.limb((x + 0.08, y + 0.05), (x + rng.uniform(0.2, 0.28), y + 0.08), 0.085), 1.1 * fur)
    canvas.paint(canvas.ellipse(x + 0.31, y + 0.05, 0.05, 0.04), 0.1 * fur)
    canvas.paint(canvas.ellipse(x + 0.06, y - 0.04, 0.035, 0.035), 0.08 * fur)


def _draw_vehicle(canvas: Canvas, rng: np.random.Generator) -> None:
    paint, glass = canvas.colour(canvas.subject), canvas.colour(canvas.ground)
    long, roof, hood = rng.uniform(0.72, 0.85), rng.uniform(-0.5, -0.3), rng.uniform(0.1, 0.4)
    back, front, slant = -long + rng.uniform(0.02, 0.3), long - hood, rng.uniform(0.08, 0.22)
    cabin = canvas.polygon((back, 0), (back + slant, roof), (front - slant, roof), (front, 0))
    canvas.paint(cabin, 0.9 * paint)
    panes = np.linspace(back + slant, front - slant, int(rng.integers(3, 5)))
    for left, right in zip(panes[:-1] + 0.02, panes[1:] - 0.02, strict=True):
        window = canvas.polygon((left, -0.04), (left, roof + 0.06), (right, roof + 0.06), (right, -0.04))
        canvas.paint(window, glass)
    canvas.paint(canvas.polygon((-long, -0.02), (long - 0.05, -0.02), (long, 0.32), (-long, 0.32)), paint)
    canvas.paint(canvas.limb((-long, 0.3), (long, 0.3), 0.04), 0.4 * paint)
    canvas.paint(canvas.limb((-long + 0.1, 0.08), (long - 0.12, 0.08), 0.012), 0.5 * paint)
    canvas.paint(canvas.ellipse(long - 0.07, 0.12, 0.06, 0.05), _WHITE)
    radius, tyre, hub = rng.uniform(0.15, 0.2), 0.08 * _WHITE, canvas.colour(0.4)
    for x in (-long + rng.uniform(0.28, 0.36), long - rng.uniform(0.28, 0.36)):
        canvas.paint(canvas.ellipse(x, 0.34, radius, radius), tyre)
        canvas.paint(canvas.ellipse(x, 0.34, 0.55 * radius, 0.55 * radius), hub)
