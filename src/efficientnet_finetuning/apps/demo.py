"""The demo page: drop photographs, see the champion's predictions. ``make demo`` serves it."""

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
from efficientnet_finetuning.errors import InputError, percent, shorten
from efficientnet_finetuning.storage import read_commit

_TYPES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_NUM_SAMPLES, _NUM_NEAREST = 6, 6
# Widths in pixels: a phone shows three samples, three small pictures or one large picture in a row.
_SAMPLE, _SMALL, _LARGE = 100, 88, 310


class Showcase(NamedTuple):
    """The page's data, loaded once for all visitors.

    Attributes:
        classifier: the champion.
        version: its folder.
        recipe: parameters and inputs of its training; empty if unknown.
        samples: test images to try.
        neighbours: training images; ``None`` if none are stored that fit the champion.
        lock: only one visitor at a time may use the network.
    """

    classifier: Classifier
    version: Path
    recipe: dict[str, Any]
    samples: list[EncodedImage]
    neighbours: Neighbours | None
    lock: Lock


@st.cache_resource(max_entries=1, show_spinner="Loading the classifier and some training images …")
def open_showcase(job: str, data: Path, champion: Path) -> Showcase:
    """Load a champion, and its job's stored images."""
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
    """Show the whole page."""
    st.set_page_config(page_title=f"{job}: what is in the picture?")
    st.title("What is in the picture?")
    try:
        showcase = open_showcase(job, data, find_champion(job, data))
    except InputError as error:
        st.error(plain(str(error)))
        return
    names = showcase.classifier.class_names
    st.markdown(f"This classifier has {len(names)} classes: {plain(shorten(names))}. Pictures stay on this machine.")
    if photographs := ask_for_photographs(showcase):
        show_results(showcase, photographs)
    show_receipt(showcase)


def ask_for_photographs(showcase: Showcase) -> list[EncodedImage]:
    """The photographs that the visitor dropped, or else the test image that they clicked."""
    files = st.file_uploader(f"Drop up to {MAX_PHOTOGRAPHS} pictures", type=_TYPES, accept_multiple_files=True)
    st.caption(
        f"A red file was rejected: it is larger than {MAX_MEGABYTES} MB, or it has no picture file extension. Make "
        "it smaller, or save it as JPEG."
    )
    if files:
        return [EncodedImage(file.name, file.getvalue()) for file in files]
    clicked = []
    if showcase.samples:
        st.caption("Or try a test image, on which the classifier was not trained:")
        with st.container(horizontal=True):
            for sample in showcase.samples:
                with st.container(width=_SAMPLE):
                    st.image(sample.content, width=_SAMPLE)
                    name = showcase.classifier.class_names[sample.label]
                    if st.button(plain(name), key=sample.id, width="stretch"):
                        clicked.append(sample)
    return clicked


def show_results(showcase: Showcase, photographs: Sequence[EncodedImage]) -> None:
    """Show a prediction or a fault for each photograph."""
    try:
        with st.spinner("Classifying …"), showcase.lock:
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
    """For each prediction, the most similar training images of its class."""
    if showcase.neighbours is None or not answers:
        return [np.empty(0)] * len(answers)
    labels = [showcase.classifier.class_names.index(answer.classes[0]) for answer in answers]
    return showcase.neighbours.nearest(np.stack([answer.square for answer in answers]), labels, _NUM_NEAREST)


def show_answer(answer: Answer) -> None:
    """Show the likeliest classes, the photograph, and an activation map of the likeliest class."""
    likeliest = plain(answer.classes[0])
    st.subheader(plain(answer.name) if answer.unanswered else f"{plain(answer.name)}: {likeliest}", anchor=False)
    if answer.unanswered:
        st.warning(plain(answer.unanswered))
    st.html(_bars(answer))
    with st.container(horizontal=True):
        st.image(answer.photograph, "The picture", width=_LARGE)
        st.image(answer.evidence, f"Yellow parts support {likeliest}", width=_LARGE)


def show_nearest(answer: Answer, images: np.ndarray) -> None:
    """Show training images of the predicted class."""
    if not len(images):
        return
    st.caption(f"Similar training images of {plain(answer.classes[0])}, most similar first:")
    with st.container(horizontal=True):
        for image in images:
            st.image(image, width=_SMALL)


def show_receipt(showcase: Showcase) -> None:
    """Show which classifier made the predictions, and how it was trained."""
    classifier, version = showcase.classifier, showcase.version
    with st.expander(f"Receipt: {plain(classifier.backbone)}, {classifier.image_size} px, {plain(version.name)}"):
        st.markdown(
            f"- Backbone: {plain(classifier.backbone)}\n"
            f"- Image size: {classifier.image_size} px\n"
            f"- Classes: {plain(', '.join(classifier.class_names))}\n"
            f"- Version: {plain(str(version))}"
        )
        if showcase.recipe:
            st.caption("How it was trained:")
            st.json(showcase.recipe, expanded=1)
        else:
            st.caption("Its folder has no valid commit.json, so its training is unknown.")


def _bars(answer: Answer) -> str:
    rows = [
        f'<span style="overflow-wrap: anywhere">{escape(name)}</span>'
        '<span style="background: rgba(128, 128, 128, .2); border-radius: 4px">'
        f'<span style="display: block; height: .8rem; width: {100 * share:.1f}%; background: #4c78a8; '
        'border-radius: 4px"></span></span>'
        f'<span style="text-align: right">{percent(share)}</span>'
        for name, share in zip(answer.classes, answer.probabilities, strict=True)
    ]
    columns = "grid-template-columns: minmax(5rem, 30%) 1fr auto"
    return f'<div style="display: grid; {columns}; gap: .3rem .8rem; align-items: center">{"".join(rows)}</div>'


if __name__ == "__main__":
    show_page(sys.argv[1], Path(sys.argv[2]))
