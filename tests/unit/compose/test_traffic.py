"""Whether `make compose-test` would notice a page that was lost or doubled."""

from cli.sample.webhooks import events
from tests.compose.traffic import make_pages, url_of, word_of, wrong_points

PAGES = range(2)
POINTS = [(url_of(0), 0), (url_of(0), 1), (url_of(1), 0)]


def test_pages_with_each_chunk_once_are_in_order() -> None:
    assert wrong_points(POINTS, PAGES, chunks=3) == []


def test_a_page_without_points_is_lost() -> None:
    assert wrong_points(POINTS[:2], PAGES, chunks=2) == [f"{url_of(1)} has chunks []"]


def test_a_page_with_a_gap_is_lost() -> None:
    assert f"{url_of(0)} has chunks [1]" in wrong_points(POINTS[1:], PAGES, chunks=2)


def test_a_last_chunk_that_is_missing_shows_in_the_sum() -> None:
    assert wrong_points([POINTS[0], POINTS[2]], PAGES, chunks=3) == ["2 points for 3 chunks"]


def test_a_chunk_that_is_there_twice_is_doubled() -> None:
    assert f"{url_of(1)} has chunk 0 2 times" in wrong_points([*POINTS, POINTS[2]], PAGES, chunks=4)


def test_a_page_that_was_never_sent_is_told() -> None:
    assert wrong_points([*POINTS, (url_of(7), 0)], PAGES, chunks=4) == [
        f"{url_of(7)} was never sent"
    ]


def test_every_page_has_a_word_of_its_own_in_every_paragraph() -> None:
    pages = make_pages(0, 100)
    for number, page in enumerate(pages):
        assert all(word_of(number) in paragraph for paragraph in page["markdown"].split("\n\n"))
    assert len({page["markdown"] for page in pages}) == len(pages)


def test_a_page_is_sent_under_its_own_url() -> None:
    numbers = iter(range(1000))
    [_, event, _] = events(make_pages(3, 1), lambda: str(next(numbers)))
    assert event["data"][0]["metadata"]["sourceURL"] == url_of(3)
