r"""Does a text deny the answer that it marks?

A denial stands before the mark, with nothing but the words of the claim between ("the answer is not", "it is wrong that
the answer is", "the wrong answer is"), or right behind it: about the mark itself ("\boxed{4} is clearly wrong"), or in
the next sentence about what was just said ("No, that is wrong."). A negation of anything else ("√2 is not rational, so
it is \boxed{4}") is none. Contradictions that only a reader understands are not found.
"""

from __future__ import annotations

import re

from posttrain.rewards.extract import Mark

WINDOW = 250
"""Characters that are read before and after a mark."""
HINTS = (
    "not", "n't", "n’t", "never", "neither", "nor ", "no ", "nowhere", "hardly", "far from", "unlike", "≠", "\\ne",
    "rather", "instead", "reject", "rule out", "discard", "disregard", "ignore", "doubt", "deny", "other than", "but",
    "except", "wrong", "incorrect", "false", "untrue", "mistake", "erroneous", "invalid", "inaccurate", "bogus",
    "nonsense", "fake", "lie ", "error", "misconception", "fallacy", "impossible", "trap", "distractor", "cancel",
    "sout", "~~", "<del", "<s", "❌", "✗", "✘",
)  # fmt: skip
"""What every denial before a mark has in it, in lower case: a quick look before the patterns."""


def _any(*words: str) -> str:
    return rf"(?:{'|'.join(words)})"


BLANK = r"[\s$({\[}*_\"'`~:]|\\[(\[,;: ]|\\(?:text|textbf|mathbf|mathrm)(?![A-Za-z])"
WRONG = r"(?:wrong|incorrect|false|untrue|mistaken|erroneous|invalid|inaccurate|bogus|nonsense|fake)"
ANSWER = r"(?:answer|result|solution|value|choice|option|guess|conclusion|number|one|response)"
MANNER = r"(?:exactly|just|simply|even|really|actually|necessarily|possibly|at all|by any means|in any way)"
SAY = r"(?:say|think|believe|claim|agree|accept|conclude|write|answer|give|put|choose|pick)"
PLACE = (  # "the answer x =", "equal to", "get": what may stand between "not" and the mark itself
    rf"(?:{BLANK}|=|\b(?:an?|the|our|my|correct|right|final|true|actual|real|{ANSWER}|of|to|be|been|being|as|equals?"
    rf"|get|have|find|obtain|{SAY}|{MANNER}|[a-z]\s*=)(?![A-Za-z]))*\Z"
)
CLAUSE = (  # "that the answer is", "it should be"
    r"[\s,]+(?:that[\s:]+)?(?:(?:the|my|our|this|that|your) )?(?:(?:correct|right|final|true) )?"
    rf"(?:{ANSWER}|it|this|that|[a-z])"
    rf"(?:['’]s|\s+(?:is|was|equals|(?:should|must|would|could|can|may|might|will) be)){PLACE}"
)
THAT = rf"(?:[\s,]+that\s+(?:(?:we|i|you|one) (?:get|have|find|obtain))?{PLACE}|{CLAUSE})"
NOT = _any(
    r"\b(?:not|never|neither|nor|cannot|hardly|no longer|no way|by no means|in no way|nowhere near|far from|unlike)\b",
    r"n['’]t\b",
    r"≠|\\neq?(?![A-Za-z])|\\neg(?![A-Za-z])",
)
EXCEPT = rf"\b(?:(?:anything|everything|any {ANSWER}|something|an? {ANSWER}) (?:but|except)|other than)\b"
WRONG_ANSWER = (
    rf"\b(?:{WRONG} (?:(?:final|common|popular|usual) )?{ANSWER}s?|mistake|misconception|fallacy|trap|distractor)\b"
)
AFFIRMED = re.compile(
    r"(?:\b(?:no|none|nothing|nobody|not|cannot|never|without|beyond)\b|n['’]t\b)[\w\s]{0,20}\Z", re.IGNORECASE
)
"""In front of "wrong that" or "doubt": nothing is denied."""
ALL = re.compile(rf"{AFFIRMED.pattern}|\b(?:all|every|each)\b[^.]{{0,20}}\Z", re.IGNORECASE)
"""In front of "other than": nothing is denied."""
COUNTED = re.compile(rf"{AFFIRMED.pattern}|\b(?:of|many)\s(?:\w+\s)?\Z", re.IGNORECASE)
"""In front of "wrong answer": nothing is denied, or they are counted."""
OR = re.compile(r"\b(?:or|if|why)\s+\Z", re.IGNORECASE)
"""In front of "not": no claim."""
BEFORE = tuple(
    (re.compile(pattern, re.IGNORECASE), unless)
    for pattern, unless in (
        (NOT + PLACE, OR),
        (rf"{NOT}\s+(?:{MANNER}\s+)?(?:true|right|correct|the case|{SAY}|to {SAY}){THAT}", OR),
        (rf"{NOT}\s+(?:{MANNER}\s+)?(?:true|right|correct) to {SAY}(?:{PLACE}|{THAT})", OR),
        (rf"\b(?:rather than|instead of|reject|rule out|discard|disregard|ignore)\b{PLACE}", None),
        (EXCEPT + PLACE, ALL),
        (rf"\b(?:doubt|deny)\b(?:{PLACE}|{THAT})", AFFIRMED),
        (rf"\b(?:{WRONG}|a lie|an error|impossible|unlikely)\b(?: to {SAY}\b{PLACE}|(?: to {SAY})?{THAT})", AFFIRMED),
        (rf"{WRONG_ANSWER}(?:{BLANK}|,|=|\b(?:is|are|was|(?:would )?be|given|here|then|to|of|for|the|this|that|problem"
         rf"|question|{SAY})(?![A-Za-z]))*\Z", COUNTED),
        (rf"(?:\A|[.!?\n])\s*(?:the following|what follows|this|that|here)? ?(?:is )?"
         rf"(?:{WRONG}|not (?:true|right|correct))[\s:,—–-]*[$({{\[*\s]*\Z", None),
        (r"(?:\\[xb]?cancel|\\sout)\s*\{[\s$]*\Z|(?:~~|<(?:del|s|strike)>|[❌✗✘])[\s$]*\Z", None),
    )
)  # fmt: skip

ADVERBS = (
    r"(?:(?:definitely|clearly|obviously|certainly|surely|just|simply|of course|actually|really|totally|completely"
    r"|plainly|utterly|also|still|therefore|thus|however|probably|possibly|very|quite|absolutely|entirely|undoubtedly"
    r"|in fact|indeed|sadly|unfortunately|an?|the|my|our|your)[\s,]+){0,4}"
)
END = r"(?=\s*(?:[.!?,;:)]|\Z|here\b|at all\b|either\b|because\b|since\b))"
OTHERWISE = r"(?!\s+(?:to|that|for|when|if|unless|only)\b|\w)"
"""What may not follow: "it is wrong to add", "not right for x = 0" speak of something else."""
TRUE = _any(
    r"(?:the |an? |my |our )?(?:(?:correct|right|final|true|real|actual|required) )?(?:answer|solution|result)\b",
    rf"(?:the )?(?:correct|right|true|accurate|acceptable|ok|okay)(?: {ANSWER})?{OTHERWISE}",
    rf"(?:it|so|the case){END}",
    r"what (?:we|i|you|was|is)\b",
)
BE = (
    r"(?:(?:is|was|['’]s|(?:would|must|may|might|could|can|will|should|has to) be"
    r"|(?:seems|appears|turn(?:s|ed) out)(?: to be)?|looks|sounds|feels)[\s,]+)"
)
AUXILIARY = r"(?:is|was|does|do|did|can|could|will|would|should|has|must|ca|wo)"
PREDICATE = _any(
    rf"{BE}{ADVERBS}(?:{WRONG}(?: {ANSWER})?|mistake|lie|trap|joke|error|distractor){OTHERWISE}",
    rf"{BE}{ADVERBS}(?:not|never|no longer|hardly|far from|anything but|by no means)\s+{ADVERBS}{TRUE}",
    rf"{AUXILIARY}(?:n['’]t|\s*not)\s+{ADVERBS}(?:be\s+{ADVERBS})?(?:{TRUE}|(?:work|hold|make sense|add up|fit){END})",
    rf"{AUXILIARY}(?:n['’]t|\s*not)(?=\s*(?:[.!?;)]|\Z))",
    rf"{BE}{ADVERBS}(?:rejected|discarded|ignored|ruled out){END}",
    rf"makes no sense\b|fails{END}",
)
SUBJECT = (
    r"(?:what i (?:wrote|said)|which|it"
    rf"|(?:this|that|the|my)(?: (?:(?:boxed|final|above|last|given) )?(?:{ANSWER}|box))?)"
)
OPENERS = (
    r"(?:(?:but|however|yet|wait|hmm+|oh|actually|well|sorry|though|and|so|hold on|alas|unfortunately|clearly|obviously"
    r"|of course|i think|i believe|i['’]m afraid|i am afraid|in fact|to be honest|honestly"
    r"|correction|no)\b[\s,.:!…—–-]*){0,4}"
)
CLOSING = r"(?:[\s$)\]}.!?,:;*_\"'`~(<←>—–-]|\\[)\].]|\\text\s*\{){0,20}"
ASIDE = r"(?:,[^,.!?;\n]{1,80},|\([^().!?\n]{1,80}\))\s*"
STOP = r"\s*(?:[.!,)}\]—–-]|\Z|\n)"
AFTER = re.compile(
    CLOSING
    + _any(
        OPENERS + rf"(?:{SUBJECT}\s*)?" + PREDICATE,
        ASIDE + PREDICATE,
        rf"{OPENERS}(?:i|we) (?:do not|don['’]t) (?:think|believe) (?:so\b|{SUBJECT}\s*{BE}{ADVERBS}{TRUE})",
        rf"{OPENERS}(?:{WRONG}(?: answer)?|nope|nah|not(?: (?:quite|really|so|exactly|true|correct|right|the answer))?)"
        + STOP,
        rf"{OPENERS}no(?:\s*[.,!;:—–)](?!\s*[0-9])|\s*\Z|\s+(?:wait|that|this|it|way|sorry)\b)",
        OPENERS + r"(?:just )?kidding|" + OPENERS + r"i (?:just )?lied",
        OPENERS + r"(?:please )?(?:scratch|strike|ignore|disregard) (?:that|this|it|the (?:above|box|answer))\b",
        OPENERS + rf"i made (?:a mistake|an error){STOP}",
        OPENERS + r"i take (?:that|it) back|[❌✗✘]",
    ),
    re.IGNORECASE,
)
NEGATIVE = re.compile(
    r"\W*(?:\\text\W*)?(?:no(?: .*)?|none|false|never|wrong|incorrect|invalid|impossible|(?:does )?not .*)\W*", re.I
)
"""An answer that is a negation itself: a "No" that follows agrees with it."""


def denied(text: str, mark: Mark) -> bool:
    """Whether the text denies the answer that `mark` holds; see above."""
    before, after = text[max(0, mark.start - WINDOW) : mark.start], text[mark.end : mark.end + WINDOW]
    lowered = before.lower()
    if any(hint in lowered for hint in HINTS):
        for pattern, unless in BEFORE:
            if (found := pattern.search(before)) and not (unless and unless.search(before[: found.start()])):
                return True
    return AFTER.match(after) is not None and not NEGATIVE.fullmatch(mark.text)
