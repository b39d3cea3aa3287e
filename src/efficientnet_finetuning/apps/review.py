"""The review page: keep, relabel or exclude one doubtful image after the other. ``make review`` serves it."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import streamlit as st

from efficientnet_finetuning.apps.text import plain
from efficientnet_finetuning.bundle.stored import command_for, command_with, find_issues, newest
from efficientnet_finetuning.data.corrections import Decision, read_decisions, replace_decision
from efficientnet_finetuning.data.splits import SPLITS
from efficientnet_finetuning.errors import InputError, counted, naming_unreadable
from efficientnet_finetuning.quality.review import Review

# Widths in pixels: a phone shows one large picture or three small ones in a row.
_LARGE, _MIDDLE, _SMALL, _NUM_NEAREST = 320, 180, 88, 6
_DECIDED = {"keep": "the label is right", "exclude": "exclude the image"}


@st.cache_resource(max_entries=1, show_spinner="Loading the issues …")
def open_review(job: str, data: Path, issues: Path) -> Review:
    """Open the issues and what else the job's runs stored."""

    def stored(layer: str, name: str) -> Path:
        if found := newest(data / layer / job / name):
            return found
        raise InputError(f"{data} has no {name} of the job {job!r}. Make it: `{command_for(job, 'review')}`.")

    with naming_unreadable(f"The stored data of the job {job!r}"):
        source = json.loads(stored("02_intermediate", "source.json").read_text(encoding="utf-8"))
        return Review.open(
            issues,
            stored("02_intermediate", "manifest.csv"),
            source["class_names"],
            [stored("03_primary", f"{split}_images") for split in SPLITS],
            stored("04_feature", "review_features"),
        )


def show_page(job: str, data: Path, file: Path) -> None:
    """Show the whole page."""
    st.set_page_config(page_title=f"{job}: look at your labels", layout="wide")
    st.title("Look at your labels")
    try:
        review = open_review(job, data, find_issues(job, data))
        decided = review.current(read_decisions(file)) if file.exists() else {}
    except InputError as error:
        st.error(plain(str(error)))
        return
    if not review.by_kind:
        st.success("There is nothing to check: the review found no issue in the used images.")
        return
    kind = st.selectbox("Kind of issue", list(review.by_kind), format_func=lambda kind: kind.replace("_", " "))
    rows = review.by_kind[kind]
    at = st.session_state.setdefault(f"at {kind}", review.first_open(kind, decided))
    looked_at = review.num_looked_at(kind, decided)
    st.progress(looked_at / len(rows), f"{looked_at:,} of {len(rows):,} checked; this is number {at + 1:,}")
    if fault := st.session_state.pop("fault", ""):
        st.error(plain(fault))
    issue = rows.iloc[at]
    image, nearest = st.columns([2, 3], gap="large")
    with image:
        show_image(review, issue, decided.get(issue["id"]))
        show_buttons(review, issue, decided, file, len(rows))
    with nearest:
        show_nearest(review, issue)
    show_end(job, data, file, looked_at == len(rows), len(decided))


def show_image(review: Review, issue: pd.Series, decision: Decision | None) -> None:
    """Show the image, its label, and the decision about it."""
    row = review.manifest.loc[issue["id"]]
    pixels = review.image(issue["id"])
    if pixels is None:
        st.warning("The pixels of this image are not stored.")
    else:
        st.image(pixels, width=_LARGE)
    told = f"Labelled **{plain(row['class_name'])}**"
    if issue["suggested"] and issue["suggested"] != row["class_name"]:
        share = "" if pd.isna(issue["probability"]) else f" ({100 * issue['probability']:.0f} %)"
        told += f", looks like **{plain(issue['suggested'])}**{share}"
    st.markdown(told)
    st.caption(" · ".join(plain(text) for text in (issue["id"], row["split"], row["corrected"]) if text))
    if decision:
        st.success(f"Decision: {_DECIDED.get(decision.action) or f'change the label to {plain(decision.label)}'}")


def show_buttons(
    review: Review, issue: pd.Series, decided: Mapping[str, Decision], file: Path, num_issues: int
) -> None:
    """Show the buttons to decide and to navigate, each with a key."""
    id_, kind, at = issue["id"], issue["kind"], st.session_state[f"at {issue['kind']}"]
    own = review.manifest.loc[id_, "class_name"]
    new = {decision.label for decision in decided.values() if decision.action == "new_class"}
    names = [name for name in sorted({*review.manifest["class_name"].unique(), *review.own_names, *new}) if name != own]
    suggested = names.index(issue["suggested"]) if issue["suggested"] in names else None
    chosen = st.selectbox(
        "Change the label to",
        names,
        suggested,
        key=f"label {kind} {id_}",
        accept_new_options=True,
        placeholder="Choose a class, or type a new one",
    )
    label = str(chosen or "")
    label = label if label in names else label.strip()

    def decide(action: str) -> None:
        before = decided.get(id_)
        if _save(file, id_, review.decide(id_, action, label)):
            undoable = st.session_state.setdefault("undo", [])
            undoable.append((kind, at, id_, before))
            go(1)

    def undo() -> None:
        kind, at, id_, before = st.session_state["undo"].pop()
        if _save(file, id_, before):
            st.session_state[f"at {kind}"] = at

    def go(step: int) -> None:
        # Count from the image on screen, so that a key pressed twice before the page updates skips no image.
        st.session_state[f"at {kind}"] = min(max(at + step, 0), num_issues - 1)

    with st.container(horizontal=True):
        st.button("Keep", key="keep", shortcut="K", on_click=decide, args=("keep",))
        to = f"Label: {plain(label)}" if label else "Label"
        st.button(to, key="label", shortcut="L", on_click=decide, args=("label",), disabled=not label, type="primary")
        st.button("Exclude", key="exclude", shortcut="X", on_click=decide, args=("exclude",))
    with st.container(horizontal=True):
        st.button("Previous", key="previous", shortcut="Left", on_click=go, args=(-1,), disabled=at == 0)
        st.button("Next", key="next", shortcut="Right", on_click=go, args=(1,), disabled=at == num_issues - 1)
        st.button("Undo", key="undo_last", shortcut="U", on_click=undo, disabled=not st.session_state.get("undo"))


def show_nearest(review: Review, issue: pd.Series) -> None:
    """Show images to compare with: the issue's neighbour, and similar images of both classes."""
    if other := issue["neighbour"]:
        of = review.manifest["class_name"].get(other, "")
        show_row(review, f"Most similar of all, in **{plain(of)}**: {plain(other)}", [other], _MIDDLE)
    own = review.manifest.loc[issue["id"], "class_name"]
    for name in dict.fromkeys([own, issue["suggested"]]):
        if name and (near := review.nearest(issue["id"], name, _NUM_NEAREST)):
            show_row(review, f"Most similar in **{plain(name)}**", near)


def show_row(review: Review, heading: str, ids: list[str], width: int = _SMALL) -> None:
    """Show a heading with images below it."""
    st.markdown(heading)
    with st.container(horizontal=True):
        for id_ in ids:
            if (pixels := review.image(id_)) is not None:
                st.image(pixels, width=width, alt=plain(id_))


def show_end(job: str, data: Path, file: Path, is_done: bool, num_decided: int) -> None:
    """Show where the decisions are, and the command that applies them."""
    if is_done:
        st.success("All issues of this kind are checked.")
    st.divider()
    st.markdown(
        f"{plain(str(file))} holds {counted(num_decided, 'decision')}. Each click is saved. To apply them, run:"
    )
    st.code(command_with(job, data, "finetune", file), language="bash", wrap_lines=True)


def _save(file: Path, id_: str, decision: Decision | None) -> bool:
    try:
        replace_decision(file, id_, decision)
    except (InputError, OSError) as error:
        st.session_state["fault"] = f"Not saved. {error}"
        return False
    return True


if __name__ == "__main__":
    show_page(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
