"""Contractions that the 10-answer rule writes with their apostrophe.

As in the VQA metric: words without the apostrophe, or with it in the wrong place. The recorded
normalisations meet 40 of these 112; the rest are from memory of the same list. Its entries that
lower-case text with `'s` split off can never equal are left out (`Im`, `let's`, ...).
"""

_WITHOUT = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock
oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_DOUBLED = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've
"""


def _doubled(right: str) -> dict[str, str]:
    """Both ways to lose one of two apostrophes: the first, or the second."""
    head, _, tail = right.rpartition("'")
    first_lost = head.replace("'", "") + "'" + tail
    return {first_lost: right, head + tail: right}


CONTRACTIONS: dict[str, str] = {
    **{right.replace("'", ""): right for right in _WITHOUT.split()},
    **{wrong: right for word in _DOUBLED.split() for wrong, right in _doubled(word).items()},
    "somebody'd": "somebodyd",
    "'ows'at": "'ow's'at",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}
