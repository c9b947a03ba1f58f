r"""Units of a number: `18cm`, `18\,\mathrm{cm}`, `60\ \frac{\text{km}}{\text{h}}`, `25^\circ\text{C}`, `£5`,
`3 million`.

A unit has one normal form however it is written: its factors in order, each by its symbol, `km*h^-1`. Nothing is
converted: 100 cm is not 1 m.
"""

from __future__ import annotations

import re

NAMES = """
m meter metre|cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|μm micrometer micrometre micron
in inch inches|ft foot feet|yd yard|mi mile|g gram gramme|kg kilogram kilo|mg milligram|t tonne|lb lbs pound|oz ounce
s sec second|ms millisecond|min minute|h hr hour|d day|week wk|month|yr year|L l liter litre|gal gallon|qt quart|pt pint
mL ml milliliter millilitre|N newton|J joule|kJ kilojoule|W watt|kW kilowatt|kWh|V volt|A amp ampere|Ω ohm|Pa pascal
kPa kilopascal|Hz hertz|kHz|MHz|K kelvin|mol mole|rad radian|° degree deg|°C|°F|C celsius|F fahrenheit|ha hectare|acre
dollar usd buck|cent ¢|euro eur|gbp|yen|rupee|mph|kph kmh|cal calorie|kcal|eV|GB|MB|TB|unit
"""
SYMBOL_OF = {
    name: names.split()[0] for line in NAMES.strip().splitlines() for names in line.split("|") for name in names.split()
}
COMPOUND = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}}
AMBIGUOUS = frozenset(("in", "mi", "pt", "ml", "ms", "ha", "cal"))
UNSPACED = frozenset(name for name in SYMBOL_OF if len(name) > 1) - AMBIGUOUS
"""What is a unit right behind a digit: `18cm`. Others could be variables, `3ml`, unless the reference has that unit."""
SIGNS = {"$": "$", "£": "gbp", "€": "euro", "¥": "yen", "₹": "rupee", "¢": "cent"}
SAME = frozenset((("", "$"), ("$", "dollar"), ("dollar", "$"), ("gbp", "lb")))
"""References and answers whose units fit although they differ: a dollar sign means nothing where sources leave it out,
and "5 pounds" is £5."""
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

EXPONENT = r"(?:\s*\^\s*(?:\{\s*-?[1-9]\s*\}|-?[1-9]))?"
FACTOR = rf"(?:\\text\s*\{{[^{{}}]*\}}|[A-Za-zμΩ]+\.?){EXPONENT}"
JOINED = rf"{FACTOR}(?:(?:\s*(?:/|\\cdot(?![A-Za-z])|\*)\s*|\s+|(?=\\text)){FACTOR}){{0,4}}"
TAIL = re.compile(
    rf"(?:(?<=[0-9)}}\]])(?P<blank>\s*)|(?<=[A-Za-z])\s*(?=\\text)|(?<=[A-Za-z])(?P<letter>\s+))"
    rf"(?P<unit>\\frac\s*\{{\s*{JOINED}\s*\}}\s*\{{\s*{JOINED}\s*\}}|(?:/\s*)?{JOINED})\.?$"
)
DEGREES = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)\s*(?:\{?\s*(?:\\text\s*\{)?\s*([CF])\s*\}?\s*\}?)?$")
SCALE = re.compile(rf"(?<=[0-9])\s*(\\text\s*\{{)?\s*({'|'.join(SCALES)})\b\.?", re.IGNORECASE)
MONEY = r"(?:US\s*)?\\?\$|\\text\s*\{\s*\\?\$\s*\}|\\text(?:dollar|sterling|euro)|\\pounds|\\euro|[£€¥₹]"
BEFORE = re.compile(rf"([-+]?)\s*({MONEY})\s*(?=[-0-9.])")
BEHIND = re.compile(rf"(?<=[0-9])\s*({MONEY}|\\?¢)\s*$")
WORD = re.compile(r"(?P<name>[A-Za-zμΩ]+|°[CF]?)\.?(?:\s*\^?\s*(?P<exponent>-?[1-9]))?|(?P<over>/)|(?P<other>\S)")


def split_unit(text: str, known: frozenset[str] = frozenset()) -> tuple[str, str, int]:
    """The text without its unit, the unit's normal form ("" where there is none), and what a word such as `million`
    multiplies by. `known`: units that are recognised in any spelling, those of the reference."""
    scale = 1
    if text[-1:].isdigit() and not BEFORE.match(text) and "^" not in text:
        return text, "", scale
    if match := SCALE.search(text):
        scale = SCALES[match.group(2).lower()]
        text = (text[: match.start()] + (r"\text{" if match.group(1) else "") + text[match.end() :]).strip()
        text = re.sub(r"\s*\\text\{\s*\}$", "", text)
    text, money = _money(text)
    if match := DEGREES.search(text):
        return text[: match.start()], "°" + (match.group(1) or ""), scale
    position = 0
    while match := TAIL.search(text, position):
        unit = normal_unit(match.group("unit"))
        if unit and (unit in known or (money and "^-1" in unit) or _is_unit(match)):
            currency = money.replace("$", "dollar")
            joined = normal_unit(f"{currency} {match.group('unit')}") if unit != currency else unit
            return text[: match.start()].rstrip(), joined, scale
        position = match.start("unit") + 1
    return text, money, scale


def normal_unit(written: str) -> str:
    """The normal form of a unit, "" for what is none."""
    factors: dict[str, int] = {}
    sign, power = 1, 1
    plain = re.sub(r"\\frac\s*\{(.*)\}\s*\{(.*)\}$", r"\1/\2", written)
    plain = re.sub(r"\^\s*\\circ\s*", "°", plain)
    plain = re.sub(r"\\text|\\cdot|[{}*]|\\(?= )", " ", plain)
    for match in WORD.finditer(re.sub(r"\bper\b", "/", plain)):
        name = match.group("name")
        if match.group("other"):
            return ""
        if match.group("over"):
            sign = -1
        elif name.lower() in ("square", "sq"):
            power = 2
        elif name.lower() in ("cubic", "cu"):
            power = 3
        elif name.lower() in ("squared", "cubed") and factors:
            last = next(reversed(factors))
            factors[last] *= 2 if name.lower() == "squared" else 3
        elif not (name in ("a", "an") and factors):
            symbol = _symbol(name)
            for part, exponent in COMPOUND.get(symbol, {symbol: 1}).items():
                factors[part] = factors.get(part, 0) + sign * power * exponent * int(match.group("exponent") or 1)
            power = 1
    if factors.pop("°", 0):
        factors["°" + "".join(factors)] = 1
        factors = {name: n for name, n in factors.items() if name.startswith("°")}
    return "*".join(name if n == 1 else f"{name}^{n}" for name, n in sorted(factors.items()))


def same_unit(gold: str, found: str) -> bool:
    """Whether an answer with the unit `found` fits a reference with the unit `gold`: the same or none."""
    return not found or found == gold or (gold, found) in SAME


def _symbol(name: str) -> str:
    for form in (name, name.lower(), name.lower().removesuffix("s")):
        if form in SYMBOL_OF:
            return SYMBOL_OF[form]
    return name if len(name) == 1 else name.lower().removesuffix("s")


def _money(text: str) -> tuple[str, str]:
    """The text without a sign of currency, and the currency."""
    for pattern in (BEFORE, BEHIND):
        if match := pattern.match(text) if pattern is BEFORE else pattern.search(text):
            sign = re.sub(r"^US|[\\\s{}]|text", "", match.group(2 if pattern is BEFORE else 1))
            names = {"dollar": "$", "sterling": "gbp", "pounds": "gbp", "euro": "euro"}
            kept = match.group(1) if pattern is BEFORE else ""
            return (kept + text[: match.start()] + text[match.end() :]).strip(), SIGNS.get(sign) or names[sign]
    return text, ""


def _is_unit(match: re.Match[str]) -> bool:
    r"""Whether a tail reads as a unit without a reference that says so: in `\text{}`, as words behind a blank, or as a
    unit of two letters and more right behind the number. Letters alone are variables, except `m/s`."""
    written = match.group("unit")
    if r"\text" in written:
        return True
    words = re.findall(r"[A-Za-zμΩ]+", written)
    if max(map(len, words)) == 1:
        return bool(match.group("blank")) and re.fullmatch(r"m\s*/\s*s(?:\s*\^\s*\{?2\}?)?", written) is not None
    if "/" in written or "^" in written or match.group("letter"):
        return all(word in SYMBOL_OF for word in words)
    if not match.group("blank"):
        return len(words) == 1 and words[0] in UNSPACED
    return min(map(len, words)) > 1 and len(words) <= (3 if not {"per", "square", "cubic"} & set(words) else 5)
