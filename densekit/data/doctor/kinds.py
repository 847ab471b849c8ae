"""The kinds of findings: what each means, whether training refuses it, and what to do."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "note"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of finding. An error: training refuses it, or it is not the data that was asked for.
    A note: training takes it, and says what it does with it.
    """

    name: str
    severity: Severity
    what: str
    """In a few words."""
    remedy: str
    """What to do; for a note, what training does."""
    image: bool = False
    """It makes an image unusable: `data.missing` of a recipe decides about its entries."""


def _kinds(severity: Severity, image: bool, rows: dict[str, tuple[str, str]]) -> dict[str, Kind]:
    return {
        name: Kind(name=name, severity=severity, what=what, remedy=remedy, image=image)
        for name, (what, remedy) in rows.items()
    }


REPLACE = "download it again, or remove its entries"
SHOW = "convert it, or remove its entries"

ANNOTATIONS = _kinds(
    "error",
    False,
    {
        "annotations": (
            "annotation file cannot be read",
            "correct it, or put the published file there",
        ),
        "tokenizer": ("tokenizer that cannot be used", "put the model's own tokenizer there"),
        "entry_count": (
            "another number of entries",
            "compare the file with the published one (size, sha256)",
        ),
        "folder_entries": (
            "another number of entries in a folder",
            "compare the file with the published one (size, sha256)",
        ),
        "entry_form": ("entry that is not an object", "remove it, or correct the file"),
        "image_field": ("`image` is not one file name", "write a relative path"),
        "several_images": ("several images in an entry", "split the entry, one image each"),
        "video": ("video or sound", "remove the entry"),
        "extra_field": (
            "field that other programs learn from, and training does not read",
            "remove it, or the entry",
        ),
        "no_turns": ("no conversation", "give turns from human and gpt, or remove the entry"),
        "turn_form": ("malformed turn", 'write {"from": "human" or "gpt", "value": text}'),
        "speaker": ("unknown speaker", "write `human` or `gpt`"),
        "system_turn": ("system turn", "remove it: the template has its own system prompt"),
        "turn_order": ("turns do not alternate", "join or remove turns: human, gpt, human, gpt"),
        "only_gpt": ("a single gpt turn", "add the human turn it answers, or remove the entry"),
        "tag_without_image": (
            "image tag without an image",
            "add the `image` field, or take the tag out",
        ),
        "tags_in_turns": ("image tags in several turns or in each other", "keep one tag"),
        "tag_missing": (
            "image without the tag that the template needs",
            "put <image> into the human turn",
        ),
        "no_words": ("conversation without words", "remove the entry"),
        "surrogate": ("half of a surrogate pair in a text", "remove the character"),
        "template_shape": (
            "conversation that the template does not take",
            "correct the entry, or use another `data.template`",
        ),
    },
)
IMAGES = _kinds(
    "error",
    True,
    {
        "image_folder": ("folder of images is missing", "fetch or unpack it there"),
        "image_folder_closed": ("folder of images cannot be listed", "change its permissions"),
        "missing_image": ("image is missing", "fetch it, or remove its entries"),
        "letter_case": ("image is there in other letter case", "rename the file"),
        "unicode_form": ("image is there in another Unicode form", "rename the file"),
        "other_extension": (
            "image is there with another extension",
            "`--repair` copies it where the catalog records that, else rename it",
        ),
        "nested_folder": ("image is one folder deeper", "move the files up one folder"),
        "image_address": ("`image` is an address of the web", "download it and write its path"),
        "windows_path": ("`image` has backslashes", "write `/` between folders"),
        "image_path": ("`image` cannot be a path", "write a relative path"),
        "folder_for_file": ("a folder where an image is due", "move it away, fetch the image"),
        "special_file": ("a pipe, device or socket where an image is due", REPLACE),
        "broken_link": ("link to nothing", "mend the link, or fetch the image"),
        "unreadable_image": ("image cannot be opened", "change its permissions"),
        "empty_image": ("image of 0 bytes", REPLACE),
        "zero_filled": ("image of zeros only", REPLACE),
        "web_page": ("web page instead of an image", REPLACE),
        "lfs_pointer": ("Git LFS pointer instead of an image", "run `git lfs pull` there"),
        "server_message": ("message of a server instead of an image", REPLACE),
        "text_file": ("text instead of an image", REPLACE),
        "archive": ("archive instead of an image", "unpack it"),
        "document": ("PDF, PostScript or SVG instead of an image", SHOW),
        "media": ("video or sound instead of an image", SHOW),
        "format_not_read": ("image format that is not read", SHOW),
        "not_an_image": ("no image of a known format", REPLACE),
        "too_many_pixels": ("image of more pixels than are decoded", "make it smaller"),
        "truncated": ("image is cut off", REPLACE),
        "undecodable": ("image cannot be decoded", REPLACE),
        "decoder_crash": ("image that ends the process that decodes it", REPLACE),
        "deep_refused": ("more than 8 bits a channel, which `fixed` refuses", "convert to 8 bits"),
    },
)
COMPARED = _kinds(
    "error",
    False,
    {
        "certificate_file": ("certificate cannot be used", "give one that `--full` wrote"),
        "certificate_differs": ("file differs from the certificate", REPLACE),
        "certificate_missing": ("file of the certificate is missing", "fetch it"),
        "certificate_new": (
            "file that the certificate lacks",
            "take it out, or keep the new certificate",
        ),
        "pin_differs": ("file differs from its pin", "download it again, or pin the new one"),
    },
)
NOTES = _kinds(
    "note",
    False,
    {
        "annotations_form": ("another form than one JSON list", "all of its entries are read"),
        "other_roles": ("roles of another format", "read as human and gpt"),
        "text_only_count": ("another number of text-only entries", "compare with the source"),
        "file_count": ("another number of files in a folder", "only named images are read"),
        "id_missing": ("entry without `id`", "training does not need it"),
        "duplicate_id": ("`id` that occurs before", "both entries are trained on"),
        "duplicate_entry": ("entry that is there twice", "both are trained on"),
        "tag_absent": ("image without a tag", "the image is fed and ignored, as officially"),
        "tag_repeated": ("several tags in a turn", "one tag is kept, in front"),
        "tag_moved": ("tag inside or behind a text", "it is moved to the front"),
        "tag_in_answer": ("image tag in an answer", "it is moved to the front, as officially"),
        "first_turn_dropped": ("conversation that gpt opens", "its first turn is dropped"),
        "no_answer": ("last human turn without an answer", "nothing is learnt from that turn"),
        "empty_answer": ("empty answer", "the end token alone is learnt"),
        "empty_question": ("empty question", "it is shown as it is"),
        "special_token": ("special token spelt out in a text", "the tokenizer may read it as one"),
        "damaged_text": ("replacement or NUL character in a text", "it is read as it is"),
        "too_long_words": ("more words than `data.max_length` has tokens", "its end is cut off"),
        "too_long_tokens": ("longer than `data.max_length`", "its end is cut off"),
        "nothing_learnt": ("no label position is left", "nothing is learnt from the entry"),
        "labels_masked": (
            "the official walk miscounts tokens",
            "all its labels are masked, as officially",
        ),
        "path_form": ("path with `.`, `..` or `//` in it", "it is followed"),
        "absolute_path": ("absolute path", "a container may not see it"),
        "outside": ("folder outside of the image folder", "a container may not see it"),
        "case_collision": ("names that differ in letter case only", "some disks keep one"),
        "wrong_extension": ("kind that its name does not say", "it is read by its content"),
        "animated": ("several frames", "the first is read"),
        "cmyk": ("CMYK", "converted without a colour profile, as officially"),
        "deep": ("more than 8 bits a channel", "cut off, as officially (docs/upstream.md, 1.10)"),
        "rotated": ("EXIF says rotated or mirrored", "shown as stored, as officially"),
        "palette": ("palette", "converted to RGB"),
        "alpha": ("transparency", "dropped: what is behind it shows"),
        "very_large": ("edge of more than 16,384 pixels", "padding makes a square of it"),
        "extreme_shape": ("edges of more than 20 to 1", "little is left of the short edge"),
        "tiny": ("edge of less than 8 pixels", "enlarged"),
        "single_colour": ("one colour only", "trained on; it may be a placeholder"),
        "repeated_image": ("the same bytes under many names", "it may be a placeholder"),
        "left_over": ("unfinished download in a folder", "it is not read"),
    },
)
KINDS: dict[str, Kind] = {**ANNOTATIONS, **IMAGES, **COMPARED, **NOTES}
