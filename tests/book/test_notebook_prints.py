"""A notebook may print what another machine makes of it, as far as it says so, and nothing else."""

import notebook_prints
import notebook_run
import pytest
from notebook_prints import Printed, difference, last_digit, value, wanders

every = pytest.mark.parametrize("path", notebook_run.NOTEBOOKS, ids=lambda path: path.stem)


def compared(expected: str, found: str, source: str = "") -> str:
    return difference(Printed(expected, wanders(source)), found)


def test_counts_are_equal_and_fractions_nearly():
    assert compared("7 of 7, 0.2500", "7 of 7, 0.2501") == ""
    assert compared("7 of 7", "7 of  7\n") == ""
    assert compared("rate 1e-05, loss 2.50e+03", "rate 1e-05, loss 2.51e+03") == ""
    assert "8 instead of 7" in compared("7 of 9", "8 of 9")
    assert compared("mean 0.25", "mean 0.31")
    assert compared("cat 0.9", "dog 0.9")
    assert compared("1,643,344", "1,643,345")
    assert compared("rate 1e-05", "rate 2e-05")
    assert compared("loss 2.5e-06", "loss 2.8e-06")
    assert compared("moved by 3 %", "moved by -3 %")


def test_a_tag_frees_the_number_after_its_words_and_no_other():
    tag = "print(found, tight)  # may differ: found ± 3 of 12, tight ± 0.5 of 2"
    before = "layer 1: found 40, tight 7.2"
    assert compared(before, "layer 1: found 43, tight 6.7", tag) == ""
    assert "44 instead of 40" in compared(before, "layer 1: found 44, tight 7.2", tag)
    assert "6.6 instead of 7.2" in compared(before, "layer 1: found 40, tight 6.6", tag)
    assert "2 instead of 1" in compared(before, "layer 2: found 40, tight 7.2", tag)
    assert "8 instead of 7" in compared("found none in\n7 shapes", "found none in\n8 shapes", tag)


def test_a_tag_without_words_frees_every_number():
    assert compared("3 and 9", "5 and 7", "# may differ: ± 2 of 8") == ""
    assert "6 instead of 3" in compared("3 and 9", "6 and 9", "# may differ: ± 2 of 8")


def test_a_tag_that_cannot_be_read_is_no_tag():
    with pytest.raises(ValueError, match="a lot"):
        wanders("# may differ: a lot")


@every
def test_what_may_differ_is_at_most_a_quarter_of_an_effect_that_is_there(path):
    for cell in notebook_prints.printed(path).values():
        shown = [(value(number[0]), tag) for number, tag in cell.numbers()]
        largest = max(
            (abs(x - y) for x, _ in shown for y in (0.0, *(z for z, _ in shown))), default=0
        )
        for tag in cell.tags:
            assert any(tag is other for _, other in shown), f"no number for {tag}"
            assert 4 * tag.by <= tag.effect <= largest, tag


def spoilt(number: str, effect: float | None) -> str:
    """A wrong number: off by half of the effect, by one, or by 3 % and three last digits."""
    mantissa, power, _ = number.replace(",", "").partition("e")
    digits = len(mantissa.partition(".")[2])
    off = value(number) if power and value(number) else 1.0
    if "." in number:
        off = 0.03 * abs(value(number)) + 3 * last_digit(number)
    wrong = value(number) + (off if effect is None else effect / 2)
    return f"{wrong:.{digits}e}" if power else f"{wrong:.{digits}f}"


@every
def test_a_wrong_number_is_noticed_wherever_it_stands(path):
    for cell in notebook_prints.printed(path).values():
        for number, tag in cell.numbers():
            wrong = spoilt(number[0], tag and tag.effect)
            text = cell.text[: number.start()] + wrong + cell.text[number.end() :]
            assert difference(cell, text), f"{wrong} for {number[0]} in {cell.text!r}"
