"""Windows cover every bin once, and never with a bin that hangs on where its window ends: an oracle on base sets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agblocks.training.genome.passes import _needed
from agblocks.training.genome.regions import chosen
from agblocks.training.genome.tiling import Shape, Span, TilingError, tile

# A model is a list of layers on sets: each position holds the bases it has seen, `None` among them where it saw padding.


def run(layers, sequence):
    """Positions as sets of what they saw. Padding is seen as "pad", whichever layer pads."""
    track = [frozenset([base]) for base in sequence]
    for word, *numbers in layers:
        if word == "conv":
            kernel, dilation = numbers
            left, right = dilation * ((kernel - 1) // 2), dilation * (kernel // 2)
            padded = [frozenset(["pad"])] * left + track + [frozenset(["pad"])] * right
            track = [frozenset().union(*padded[i : i + left + right + 1 : dilation]) for i in range(len(track))]
        elif word == "pool":
            (size,) = numbers
            track = [frozenset().union(*track[i : i + size]) | rest(track, i, size) for i in range(0, len(track), size)]
        elif word == "up":
            track = [seen for seen in track for _ in range(numbers[0])]
        elif word == "sides":
            track = track[numbers[0] : len(track) - numbers[0]]
        elif word == "center":
            crop = (len(track) - numbers[0]) // 2
            track = track[crop : crop + numbers[0]]
    return track


def rest(track, start, size):
    return frozenset(["rest"]) if start + size > len(track) else frozenset()


def span(layers, window):
    """By the rule of each word, told apart from what `borders` does by counting marks of a window's own ends."""
    if window > 5000:
        raise TilingError("too long for an oracle")
    inner = run(layers, range(window))
    dirty = [bool({"pad", "rest"} & seen) for seen in inner]
    middle = len(inner) // 2
    start = max((i + 1 for i in range(middle) if dirty[i]), default=0)
    end = min((i for i in range(middle, len(inner)) if dirty[i]), default=len(inner))
    stride, offset = 1, 0
    length = window
    for word, *numbers in layers:
        if word == "pool":
            stride, length = stride * numbers[0], -(-length // numbers[0])
        elif word == "up":
            stride, length = stride // numbers[0], length * numbers[0]
        elif word == "sides":
            offset, length = offset + stride * numbers[0], length - 2 * numbers[0]
        elif word == "center":
            offset, length = offset + stride * ((length - numbers[0]) // 2), numbers[0]
    return Span(stride, offset, len(inner), min(start, end), end)


def grid_of(layers):
    grid = stride = 1
    for word, *numbers in layers:
        if word == "pool":
            stride *= numbers[0]
        grid = max(grid, stride)
    return grid


convolutions = st.tuples(st.just("conv"), st.integers(1, 6), st.integers(1, 3))
pools = st.tuples(st.just("pool"), st.sampled_from([2, 4]))
crops = st.tuples(st.just("sides"), st.integers(1, 5))


@st.composite
def models(draw, cropping=True):
    """Layers with pools by powers of two, ups no finer than a base, crops on both sides."""
    layers, stride = [], 1
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["conv", "conv", "pool", "up", *["sides"] * cropping]))
        if kind == "up" and stride > 1:
            layers.append(("up", 2))
            stride //= 2
        elif kind == "pool" and stride < 16:
            layer = draw(pools)
            stride *= layer[1]
            layers.append(layer)
        elif kind == "sides":
            layers.append(draw(crops))
        else:
            layers.append(draw(convolutions))
    return layers


def long_window(layers, tiling):
    """What one long window says, over bases of the sequence, with N before and behind it."""
    return run(layers, [base if 0 <= base < tiling.length else "N" for base in range(tiling.start, tiling.end)])


def check(layers, tiling, shape, layers_of_long):
    expected = long_window(layers_of_long, tiling)
    bins = tiling.bins["out"]
    covered = []
    for window in tiling.windows:
        made = run(layers, [base if 0 <= base < tiling.length else "N" for base in range(window.start, window.end)])
        part = window.parts["out"]
        assert part.start <= part.keep_start <= part.keep_end <= part.end or part.keep_start == part.keep_end
        for i in range(part.start, part.end):
            assert made[i - part.at] == expected[bins.zero + i], (i, window)
        covered += range(part.keep_start, part.keep_end)
        assert (window.start - tiling.start) % shape.grid == 0
    assert covered == list(range(bins.count))  # once, and in order
    assert -bins.stride < bins.first <= 0
    for before, after in zip(tiling.windows, tiling.windows[1:], strict=False):
        shared = before.parts["out"].end - after.parts["out"].start
        assert min(shared * bins.stride + bins.stride, 10**9) > tiling.overlap or after.parts["out"].end >= bins.count


@settings(deadline=None, max_examples=200)
@given(models(), st.integers(1, 700), st.integers(1, 200), st.integers(0, 40), st.data())
def test_as_one_long_window(layers, length, extra, overlap, data):
    grid = grid_of(layers)
    multiple = data.draw(st.sampled_from([1, grid]))
    least = sum(2 * numbers[0] * 16 + 64 for word, *numbers in layers if word == "sides") + 16
    shape = Shape(lambda n: {"out": span(layers, n)}, grid, lambda n: -(-max(n, least) // multiple) * multiple)
    window = shape.admitted(extra + 2 * grid)
    try:
        tiling = tile(length, window, shape, overlap)
    except TilingError as error:
        window = int(str(error).rpartition("windows of ")[2].split()[0].replace(",", ""))  # as the message advises
        tiling = tile(length, window, shape, overlap)
    check(layers, tiling, shape, layers)
    if not any(word == "sides" for word, *_ in layers):
        assert tiling.start == 0
        assert tiling.end == shape.admitted(length)
        assert tiling.bins["out"].count == -(-length // span(layers, window).stride)
    bins = tiling.bins["out"]
    assert bins.first + bins.stride * bins.count >= length


@settings(deadline=None, max_examples=50)
@given(models(cropping=False), st.integers(1, 500), st.integers(1, 12), st.integers(0, 60), st.integers(0, 20))
def test_a_crop_to_a_number_of_bins(layers, length, target, more, overlap):
    """The long window's crop is by as many bins as each window's, so its target is what is left of it."""
    grid = grid_of(layers)
    cropped = [*layers, ("center", target)]
    shape = Shape(lambda n: {"out": span(cropped, n)}, grid, lambda n: n, fixed=True)
    window = ((target + 2 * more) * span(layers, 16 * grid).stride // grid + 1) * grid
    try:
        tiling = tile(length, window, shape, overlap)
    except TilingError:
        return  # a crop to so few bins leaves nothing, whatever the window; the next test says what is told
    assert all(w.end - w.start == window for w in tiling.windows)
    count = len(run(layers, range(window)))
    long = len(run(layers, range(tiling.end - tiling.start)))
    check(cropped, tiling, shape, [*layers, ("center", long - (count - target))])


def test_several_outputs_share_windows():
    fine, coarse = Span(1, 0, 256, 5, 251), Span(16, 0, 16, 2, 14)
    spans = {256: {"fine": fine, "coarse": coarse}}

    def of(window):
        return spans.get(window) or {
            "fine": Span(1, 0, window, 5, window - 5),
            "coarse": Span(16, 0, -(-window // 16), 2, window // 16 - 2),
        }

    tiling = tile(1000, 256, Shape(of, 16), 32)
    for name, stride in (("fine", 1), ("coarse", 16)):
        kept = [(w.parts[name].keep_start, w.parts[name].keep_end) for w in tiling.windows]
        assert [a for a, _ in kept] == [0, *(b for _, b in kept[:-1])]
        assert kept[-1][1] == -(-1000 // stride)


def test_windows_that_do_not_get_on():
    shape = Shape(lambda n: {"out": Span(1, 0, n, 50, n - 50)})
    with pytest.raises(TilingError, match=r"a window of 100 bases nothing is left .* windows of 101 bases get on"):
        tile(1000, 100, shape)
    tile(1000, 101, shape)
    with pytest.raises(TilingError, match="takes no window of 100 bases; from there on the shortest is 128"):
        tile(1000, 100, Shape(shape.spans, 128, lambda n: -(-n // 128) * 128))


@settings(deadline=None, max_examples=100)
@given(
    st.integers(200, 1500),
    st.lists(st.tuples(st.integers(0, 1400), st.integers(1, 90)), min_size=1, max_size=5),
    st.integers(0, 60),
    st.sampled_from(["crop", "linear"]),
)
def test_the_windows_that_regions_need(length, regions, overlap, blend):
    """Base by base: a window is needed if it has a say in a bin of some region, and only then."""
    shape = Shape(lambda n: {"out": Span(4, 0, -(-n // 4), 3, n // 4 - 3)}, 4)
    tiling = tile(length, 128, shape, overlap)
    stretches = chosen({"one": length}, None, [("one", s, min(length, s + n)) for s, n in regions if s < length] or
                       [("one", 0, 1)])["one"]  # fmt: skip
    wanted = {base // 4 for start, end in stretches for base in range(start, end)}
    expected = []
    for number, window in enumerate(tiling.windows):
        part = window.parts["out"]
        said = range(part.keep_start, part.keep_end) if blend == "crop" else range(part.start, part.end)
        if wanted.intersection(said):
            expected.append(number)
    assert _needed(tiling, stretches, blend) == expected
