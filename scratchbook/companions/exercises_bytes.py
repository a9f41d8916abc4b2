"""The check behind exercise 1.1 of chapters/01_tokenization.ipynb: reading UTF-8."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scratchbook.teaching.answers import counterexample
from scratchbook.teaching.checking import Property, exercise, expect


def refuses(function: Callable, *arguments: object) -> bool:
    """True when the call raises ValueError."""
    try:
        function(*arguments)
    except ValueError:
        return True
    return False


def result_or_error(function: Callable, *arguments: object) -> object:
    """What the call returns, or the error that it raises."""
    try:
        return function(*arguments)
    except NotImplementedError:
        raise
    except Exception as error:
        return error


@exercise
def utf8_decode(answer: Callable) -> Iterator[Property]:
    """`utf8_decode(data: bytes) -> str`, without any decoder of Python's own."""
    if isinstance(result_or_error(answer, _Undecodable(b"plain")), _OwnDecoder):
        yield expect("written without Python's decoders", False,
                     (True, "data.decode() is what the exercise asks you to write"))
        return
    samples = {1: "plain", 2: "Größe", 3: "日本語", 4: "🙂𝄞"}
    for size, text in samples.items():
        got = result_or_error(answer, text.encode())
        unmasked = isinstance(got, str) and len(got) == len(text)
        yield expect(
            f"{size}-byte characters: {text!r}", got == text,
            (isinstance(got, list), "return a string: ''.join(map(chr, code_points))"),
            (got == text.encode().decode("latin-1"),
             "every byte became a character: the first byte of a character says how many follow"),
            (size == 4 and isinstance(got, ValueError),
             "a first byte of the form 11110xxx starts four bytes"),
            (unmasked or isinstance(got, ValueError | OverflowError),
             "the number is put together wrongly, perhaps with the marks still in it: keep 5, 4\n"
             "or 3 bits of the first byte (& 0x1F, 0x0F, 0x07) and 6 bits of each that follows\n"
             "(& 0x3F), shifting by 6 for each"),
            (True, f"got {got!r}"))
    yield expect("the empty text stays empty", answer(b"") == "")
    yield from _malformed_utf8(answer)


class _OwnDecoder(Exception):
    pass


class _Undecodable(bytes):
    """Bytes without the method that the exercise is about."""

    def decode(self, *arguments: object, **options: object) -> str:
        raise _OwnDecoder


def _malformed_utf8(answer: Callable) -> Iterator[Property]:
    cases = {
        "a text that stops inside a character (E2 82)": (
            b"\xe2\x82", "check that enough bytes are left before reading them"),
        "a following byte without the mark 10 (E2 28 A1)": (
            b"\xe2\x28\xa1", "each following byte must satisfy byte & 0xC0 == 0x80"),
        "a text that starts with a following byte (80)": (
            b"\x80", "a byte of the form 10xxxxxx cannot start a character"),
        "an overlong form: 2F written as C0 AF": (
            b"\xc0\xaf", "the same number in more bytes than it needs: compare the code point with "
            "the\nsmallest that needs this length (0x80, 0x800, 0x10000). Filters that look for "
            "'/' in\nthe bytes were walked around this way"),
        "a surrogate (ED A0 80 would be U+D800)": (
            b"\xed\xa0\x80", "U+D800 to U+DFFF are halves of UTF-16 pairs, not characters"),
        "a number beyond U+10FFFF (F4 90 80 80)": (
            b"\xf4\x90\x80\x80", "Unicode ends at U+10FFFF"),
    }
    for what, (data, advice) in cases.items():
        yield expect(f"ValueError for {what}", refuses(answer, data), (True, advice))
    inputs = [(data,) for data in _utf8_borders()]
    differs = counterexample(_text_or_refusal(answer), _text_or_refusal(bytes.decode), inputs)
    yield expect(f"equal to Python's decoder at every border of the rules ({len(inputs):,} texts)",
                 not differs, (True, differs))


def _text_or_refusal(decode: Callable) -> Callable:
    def outcome(data: bytes) -> str:
        try:
            return f"the text {decode(data)!r}"
        except ValueError:
            return "a ValueError"
    return outcome


def _utf8_borders() -> list[bytes]:
    """Texts of up to five bytes: characters on each border, and every first byte with endings."""
    # FDD0 and FEFF are no borders, but some decoders refuse the one and drop the other
    points = [point + step for point in (1, 0x80, 0x800, 0xD800, 0xE000, 0xFDD0, 0xFEFF, 0x10000,
                                         0x10FFFF)
              for step in (-1, 0, 1) if point + step <= 0x10FFFF]
    texts = [chr(point).encode("utf-8", "surrogatepass") for point in points]
    seconds = [b"", b"a", *(bytes([value]) for value in (0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0))]
    for first in range(256):
        for second in seconds:
            texts += [bytes([first]) + second + b"\x80" * more for more in range(4)]
            texts += [bytes([first]) + second + b"\xbf" * more + b"a" for more in range(4)]
    return sorted({*texts, b"\r\n"}, key=lambda data: (len(data), data))
