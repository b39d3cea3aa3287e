"""The demo page: photographs in, the champion's answers out. ``make demo`` serves it."""

import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import streamlit as st

from efficientnet_finetuning.apps.text import plain
from efficientnet_finetuning.bundle.classifier import Classifier
from efficientnet_finetuning.bundle.explain import (
    MAX_MEGABYTES,
    MAX_PHOTOGRAPHS,
    Answer,
    Fault,
    Neighbours,
    explain,
    samples,
)
from efficientnet_finetuning.bundle.stored import find_champion, prepared_images
from efficientnet_finetuning.data.encoded import EncodedImage
from efficientnet_finetuning.errors import InputError, shorten
from efficientnet_finetuning.storage import read_commit

_TYPES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_NUM_SAMPLES, _NUM_NEAREST = 6, 6
# Widths in pixels: on a phone, three samples, three small pictures or one large one stand beside each other.
_SAMPLE, _SMALL, _LARGE = 100, 88, 310


class Showcase(NamedTuple):
    """What the page shows of a job, loaded once for all visitors.

    Attributes:
        classifier: the champion.
        version: its folder.
        recipe: what it was made by; empty where that is not written down.
        samples: test images to try.
        neighbours: training images; ``None`` where none are stored that fit the champion.
        lock: a network answers one visitor at a time.
    """

    classifier: Classifier
    version: Path
    recipe: dict[str, Any]
    samples: list[EncodedImage]
    neighbours: Neighbours | None
    lock: Lock


@st.cache_resource(max_entries=1, show_spinner="Loading the classifier and some training images …")
def open_showcase(job: str, data: Path, champion: Path) -> Showcase:
    """Load a champion, and what the runs of its job have left to show beside it."""
    classifier = Classifier.load(champion)
    train = prepared_images(job, "train", classifier, data)
    test = prepared_images(job, "test", classifier, data)
    return Showcase(
        classifier=classifier,
        version=champion.parent,
        recipe=(read_commit(champion.parent) or {}).get("recipe") or {},
        samples=[] if test is None else samples(classifier, test, _NUM_SAMPLES),
        neighbours=None if train is None else Neighbours.of(classifier, train),
        lock=Lock(),
    )


def show_page(job: str, data: Path) -> None:
    """The whole page, from its top to its end."""
    st.set_page_config(page_title=f"{job}: what is in the picture?")
    st.title("What is in the picture?")
    try:
        showcase = open_showcase(job, data, find_champion(job, data))
    except InputError as error:
        st.error(plain(str(error)))
        return
    names = showcase.classifier.class_names
    st.markdown(f"This classifier knows {len(names)} classes: {plain(shorten(names))}. Pictures stay on this machine.")
    if photographs := ask_for_photographs(showcase):
        show_results(showcase, photographs)
    show_receipt(showcase)


def ask_for_photographs(showcase: Showcase) -> list[EncodedImage]:
    """What the visitor has dropped; before that, the sample image that was clicked."""
    files = st.file_uploader(f"Drop up to {MAX_PHOTOGRAPHS} pictures", type=_TYPES, accept_multiple_files=True)
    st.caption(
        f"A file that turns red was not taken: it is larger than {MAX_MEGABYTES} MB, or no picture by its name. "
        "Make it smaller, or save it as JPEG."
    )
    if files:
        return [EncodedImage(file.name, file.getvalue()) for file in files]
    clicked = []
    if showcase.samples:
        st.caption("Or try a test image, which the classifier has not learnt from:")
        with st.container(horizontal=True):
            for sample in showcase.samples:
                with st.container(width=_SAMPLE):
                    st.image(sample.content, width=_SAMPLE)
                    name = showcase.classifier.class_names[sample.label]
                    if st.button(plain(name), key=sample.id, width="stretch"):
                        clicked.append(sample)
    return clicked


def show_results(showcase: Showcase, photographs: Sequence[EncodedImage]) -> None:
    """An answer or a fault for each photograph."""
    try:
        with st.spinner("Looking …"), showcase.lock:
            results = explain(showcase.classifier, photographs)
            answers = [result for result in results if isinstance(result, Answer)]
            nearest = iter(find_nearest(showcase, answers))
    except InputError as error:
        st.error(plain(str(error)))
        return
    for result in results:
        if isinstance(result, Fault):
            st.error(plain(result.message))
            continue
        with st.container(border=True):
            show_answer(result)
            show_nearest(result, next(nearest))


def find_nearest(showcase: Showcase, answers: Sequence[Answer]) -> list[np.ndarray]:
    """For each answer, the training images of its class that are most like the photograph."""
    if showcase.neighbours is None or not answers:
        return [np.empty(0)] * len(answers)
    labels = [showcase.classifier.class_names.index(answer.classes[0]) for answer in answers]
    return showcase.neighbours.nearest(np.stack([answer.square for answer in answers]), labels, _NUM_NEAREST)


def show_answer(answer: Answer) -> None:
    """The likeliest classes, and the photograph beside what speaks for the first of them."""
    likeliest = plain(answer.classes[0])
    st.subheader(plain(answer.name) if answer.unanswered else f"{plain(answer.name)}: {likeliest}", anchor=False)
    if answer.unanswered:
        st.warning(plain(answer.unanswered))
    st.html(_bars(answer))
    with st.container(horizontal=True):
        st.image(answer.photograph, "The picture", width=_LARGE)
        st.image(answer.evidence, f"What speaks for {likeliest}, from dark to yellow", width=_LARGE)


def show_nearest(answer: Answer, images: np.ndarray) -> None:
    """Training images of the predicted class."""
    if not len(images):
        return
    st.caption(f"The most similar of some training images of {plain(answer.classes[0])}, nearest first:")
    with st.container(horizontal=True):
        for image in images:
            st.image(image, width=_SMALL)


def show_receipt(showcase: Showcase) -> None:
    """Which classifier answered, and how it was made."""
    classifier, version = showcase.classifier, showcase.version
    with st.expander(f"Receipt: {plain(classifier.backbone)}, {classifier.image_size} px, {plain(version.name)}"):
        st.markdown(
            f"- Backbone: {plain(classifier.backbone)}\n"
            f"- Image size: {classifier.image_size} px\n"
            f"- Classes: {plain(', '.join(classifier.class_names))}\n"
            f"- Version: {plain(str(version))}"
        )
        if showcase.recipe:
            st.caption("What it was made by:")
            st.json(showcase.recipe, expanded=1)
        else:
            st.caption("There is no commit.json in its folder: nobody wrote down what it was made by.")


def _bars(answer: Answer) -> str:
    rows = [
        f'<span style="overflow-wrap: anywhere">{escape(name)}</span>'
        '<span style="background: rgba(128, 128, 128, .2); border-radius: 4px">'
        f'<span style="display: block; height: .8rem; width: {100 * share:.1f}%; background: #4c78a8; '
        'border-radius: 4px"></span></span>'
        f'<span style="text-align: right">{_percent(share)}</span>'
        for name, share in zip(answer.classes, answer.probabilities, strict=True)
    ]
    columns = "grid-template-columns: minmax(5rem, 30%) 1fr auto"
    return f'<div style="display: grid; {columns}; gap: .3rem .8rem; align-items: center">{"".join(rows)}</div>'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    show_page(sys.argv[1], Path(sys.argv[2]))
