r"""Does a text deny the answer that it marks?

A denial stands before the mark with nothing but the words of a claim between ("the answer is not", "it is wrong that
the answer is", "the wrong answer is"), or behind it: about the mark itself ("\boxed{4} is clearly wrong") or in the next
sentence about what was just said ("No, that is wrong."). A negation of anything else ("√2 is not rational, so it is
\boxed{4}") is none. Contradictions that only a reader understands are not found.
"""

from __future__ import annotations

import re

from posttrain.rewards.extract import Mark

WINDOW = 250
"""Characters that are read before and after a mark."""
HINT = re.compile(
    r"no|n['’]t\b|never|neither|wrong|incorrect|false|untrue|mistake|misconception|fallacy|erroneous|invalid|inaccurate"
    r"|impossible|anything|other than|rather|instead|unequal|unlike|doubt|deny|fail|lie\b|lied|kidding|scratch|ignore"
    r"|disregard|take (?:that|it)|far from|bogus|nonsense|≠|\\neq?|cancel|sout|~~|<(?:del|s|strike)>",
    re.IGNORECASE,
)
WRONG = r"(?:wrong|incorrect|false|untrue|mistaken|erroneous|invalid|inaccurate|bogus|nonsense|fake)"
ANSWER = r"(?:answer|result|solution|value|choice|option|guess|conclusion|number|one|response)"
BLANK = r"[\s$({\[}*_\"'`~:]|\\[(\[]|\\(?:text|textbf|mathbf|mathrm)(?![A-Za-z])|\\[,;: ]"
CLAIM = (
    rf"(?:{BLANK}|\b(?:an?|the|that|this|it|its|it['’]s|is|are|was|were|be|been|being|as|to|final|correct|right|true"
    rf"|actual|real|{ANSWER}|equals?|equal|think|believe|say|claim|agree|accept|conclude|write|get|have|find|give|i|we"
    r"|you|one|should|would|could|can|may|might|must|do|does|did|will|by|any|means|way|at|all|case|possibly|necessarily"
    r"|really|actually|simply|just|exactly|even|longer|[a-z]\s*=)(?![A-Za-z])|=)*"
)
BEFORE = re.compile(
    rf"(?P<not>\b(?:not|never|neither|nor|cannot|hardly|no longer|no way|far from|unlike|unequal to)\b|n['’]t\b|≠"
    rf"|\\neq?(?![A-Za-z])|\\neg(?![A-Za-z])|\b(?:rather than|instead of)\b|\b(?:doubt|deny)\b"
    rf"|\b(?:anything|any {ANSWER}|something|a {ANSWER}) (?:but|except|other than)\b|\bother than\b){CLAIM}\Z"
    rf"|(?P<wrong>\b{WRONG} (?:(?:final|common|popular|usual) )?{ANSWER}s?\b|\b(?:mistake|misconception|fallacy)\b)"
    rf"(?:{BLANK}|,|=|\b(?:is|are|was|would be|be|being|given|here|then|to|of|for|the|this|that|problem|question|say|answer"
    r"|write|give|claim|think)(?![A-Za-z]))*\Z"
    rf"|(?P<that>\b(?:{WRONG}|a lie|a mistake|an error|impossible|unlikely) (?:that|to)\b){CLAIM}\Z"
    rf"|(?:\A|[.!?\n])\s*(?:the following|what follows|this|that|here)? ?(?:is )?(?:{WRONG}|not (?:true|right|correct))"
    r"[\s:,—–-]*[$({\[*\s]*\Z"
    r"|(?:\\[xb]?cancel|\\sout|\\st)\s*\{[\s$]*\Z|(?:~~|<(?:del|s|strike)>)[\s$]*\Z",
    re.IGNORECASE,
)
AFFIRMED = re.compile(r"(?:\b(?:no|none|nothing|nobody|not|never|without|beyond|or)|n['’]t)\b[\w\s]{0,20}\Z", re.IGNORECASE)
"""In front of "other than", "wrong that" or "doubt", and "or" in front of "not": nothing is denied."""

ADVERBS = (
    r"(?:(?:definitely|clearly|obviously|certainly|surely|just|simply|of course|actually|really|totally|completely"
    r"|plainly|utterly|also|still|therefore|thus|however|probably|possibly|very|quite|absolutely|entirely|undoubtedly"
    r"|in fact|indeed|sadly|unfortunately|a|an|the|my|our|your)[\s,]+){0,4}"
)
TRUE = (
    rf"(?:(?:the |a |an |my |our )?(?:(?:correct|right|final|true|real|actual|required|desired) )?(?:answer|solution|result)"
    rf"|(?:the )?(?:correct|right|true|accurate|acceptable|ok|okay)(?: {ANSWER})?|(?:it|so|the case)(?=\s*(?:[.!?,;)]|\Z))"
    r"|what (?:we|i|you|was|is)\b)"
)
THEN = r"(?!\s+(?:to|that|for|when|if|unless|of all|only)\b|\w)"
"""What may not follow: "it is wrong to add", "not valid for x = 0" speak of something else."""
PREDICATE = (
    rf"(?:(?:is|was|are|'s|’s|would be|must be|may be|might be|could be|can be|will be|has to be|should be|seems(?: to be)?"
    rf"|looks|sounds|feels|appears(?: to be)?|turns out to be|turned out to be)\s+{ADVERBS}"
    rf"(?:{WRONG}(?: {ANSWER})?{THEN}|(?:mistake|lie|trap|joke|error){THEN}"
    rf"|(?:not|never|no longer|hardly|far from|anything but|by no means|neither)\s+{ADVERBS}{TRUE}{THEN})"
    rf"|(?:is|was|does|do|did|can|could|will|would|should|are|has|must)(?:n['’]t|\s*not)\s+{ADVERBS}(?:be\s+{ADVERBS})?"
    rf"(?:{TRUE}|work|hold|make sense|add up|check out|answer the question|count){THEN}"
    r"|(?:is|was|does|did)(?:n['’]t|\s*not)\s*(?:[.!?,;)]|\Z)"
    rf"|makes no sense\b|fails{THEN}|can(?:not|['’]t)\s+{ADVERBS}be\s+{ADVERBS}(?:{TRUE}|so|it){THEN})"
)
SUBJECT = (
    rf"(?:this|that|it|which|the|my|that|this)(?: (?:(?:boxed|final|above|last|given) )?(?:{ANSWER}|box))?"
    r"|what i (?:wrote|said)"
)
OPENERS = (
    r"(?:(?:but|however|yet|wait|hmm+|oh|actually|well|sorry|though|and|so|hold on|alas|unfortunately|clearly|obviously|of"
    r" course|i think|i believe|i['’]m afraid|i am afraid|in fact|to be honest|honestly|note that|no)\b[\s,.!…—–-]*){0,4}"
)
AFTER = re.compile(
    rf"(?:[\s$)\]}}.!?,:;*_\"'`~(—–-]|\\[)\].]|\\text\s*\{{){{0,20}}"
    rf"(?:(?:,[^,.!?;\n]{{1,80}},|\([^().!?\n]{{1,80}}\))\s*)?"
    rf"(?:(?:{OPENERS})(?:(?:{SUBJECT})\s*)?(?:{PREDICATE})"
    rf"|(?:{OPENERS})(?:i|we) (?:do not|don['’]t) (?:think|believe) (?:so\b|(?:{SUBJECT}) (?:is|was) {ADVERBS}{TRUE})"
    rf"|(?:{OPENERS})(?:{WRONG}(?: answer)?|not (?:{ADVERBS})(?:quite|really|so|exactly|true|correct|right|the answer)|nope|nah"
    r"|not)\s*(?:[.!,)\]}—–-]|\Z|\n)"
    r"|(?:(?:but|well|oh|wait|hmm+|actually)\b[\s,.!…]*)?no(?:\s*[.,!;:—–)](?!\s*[0-9])|\s*\Z|\s+(?:wait|that|this|it|way|sorry)\b)"
    rf"|(?:{OPENERS})(?:just kidding|kidding|i (?:just )?lied|(?:please )?(?:scratch|strike|ignore|disregard) (?:that|this|the"
    r" (?:above|box|answer))|i take (?:that|it) back|i made (?:a mistake|an error)))",
    re.IGNORECASE,
)
NEGATIVE = re.compile(r"\W*(?:\\text\W*)?(?:no|none|false|not .*|never|wrong|incorrect|invalid|impossible|does not .*)\W*", re.I)
"""An answer that is a negation itself: what follows "No" agrees with it."""


def denied(text: str, mark: Mark) -> bool:
    """Whether the text denies the answer that `mark` holds; see above."""
    before, after = text[max(0, mark.start - WINDOW) : mark.start], text[mark.end : mark.end + WINDOW]
    if HINT.search(before) and (found := BEFORE.search(before)):
        unless = found.group("not") or found.group("wrong") or found.group("that")
        ambiguous = unless and not re.fullmatch(r"never|neither|nor|cannot|hardly|n['’]t|≠|\\.*", unless, re.IGNORECASE)
        if not ambiguous or not AFFIRMED.search(before[: found.start()]):
            return True
    return bool(HINT.search(after) and AFTER.match(after)) and not NEGATIVE.fullmatch(mark.text)
