import pytest

from efficientnet_finetuning.errors import InputError, counted, near_matches


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("trainning", " Did you mean 'training'?"),
        ("TRAINING", " Did you mean 'training'?"),
        ("efficientnetlite", " Did you mean 'EfficientNetLite'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_a_near_name_is_suggested_whatever_its_case_and_a_far_one_is_not(name, sentence):
    assert near_matches(name, ["training", "evaluation", "EfficientNetLite"]) == sentence


def test_at_most_three_names_are_suggested_nearest_first():
    sentence = near_matches("block6z", ["block1a", "block6a", "block6ab", "block6zz", "block6c"])
    assert sentence.startswith(" Did you mean 'block6zz' or ")
    assert sentence.count("'") == 6


def test_an_input_error_is_a_value_error_with_the_message_it_was_given():
    with pytest.raises(ValueError, match=r"^say what to do$"):
        raise InputError("say what to do")


@pytest.mark.parametrize(
    ("number", "noun", "words"), [(1, "image", "1 image"), (2000, "image", "2,000 images"), (0, "class", "0 classes")]
)
def test_a_noun_agrees_with_its_number(number, noun, words):
    assert counted(number, noun) == words
