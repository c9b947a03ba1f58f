"""What the task files of the zoo are made of: tables of facts, written by hand."""

# ruff: noqa: E501 (the tables have one row a line)

from __future__ import annotations

CAPITALS = {
    "Australia": "Canberra", "Brazil": "Brasília", "Canada": "Ottawa", "Chile": "Santiago", "Colombia": "Bogotá",
    "Denmark": "Copenhagen", "Egypt": "Cairo", "Finland": "Helsinki", "Ghana": "Accra", "Greece": "Athens",
    "Hungary": "Budapest", "Iceland": "Reykjavík", "Ireland": "Dublin", "Jordan": "Amman", "Kenya": "Nairobi",
    "Latvia": "Riga", "Morocco": "Rabat", "Nepal": "Kathmandu", "New Zealand": "Wellington", "Norway": "Oslo",
    "Paraguay": "Asunción", "Portugal": "Lisbon", "Senegal": "Dakar", "Switzerland": "Bern", "Turkey": "Ankara",
    "Vietnam": "Hanoi",
}  # fmt: skip

TRANSLATIONS = [
    ("Japanese", "water", "水"), ("Japanese", "mountain", "山"), ("Japanese", "dog", "犬"), ("Japanese", "tree", "木"),
    ("Japanese", "fire", "火"), ("Japanese", "book", "本"), ("Russian", "house", "дом"), ("Russian", "bread", "хлеб"),
    ("Russian", "milk", "молоко"), ("Russian", "window", "окно"), ("Greek", "sea", "θάλασσα"),
    ("Greek", "bread", "ψωμί"), ("Greek", "moon", "φεγγάρι"), ("Spanish", "house", "casa"), ("Spanish", "dog", "perro"),
    ("Spanish", "milk", "leche"), ("Spanish", "book", "libro"), ("Spanish", "window", "ventana"),
    ("German", "house", "Haus"), ("German", "tree", "Baum"), ("German", "dog", "Hund"), ("German", "water", "Wasser"),
    ("Italian", "milk", "latte"), ("Italian", "bread", "pane"), ("Italian", "moon", "luna"), ("Italian", "sea", "mare"),
]  # fmt: skip

TICKETS = [
    ("I was charged twice this month.", "billing"),
    ("The invoice shows the wrong address.", "billing"),
    ("The app crashes when I open a photo.", "bug"),
    ("Search returns an empty page since the update.", "bug"),
    ("I cannot reset my password.", "account"),
    ("Please merge my two logins.", "account"),
    *((text, "other") for text in (
        "Do you have an office in Leeds?", "Your blog post on tea was lovely.", "When is the next meetup?",
        "Can I reprint your logo in our school paper?", "Are you hiring interns?", "Who painted the mural in your lobby?",
        "Is the podcast coming back?", "Where do I send a postcard?", "May we film in your building?",
        "Do you sponsor chess clubs?", "What does your company name mean?", "I met your founder in 2009.",
        "Is your cafeteria open to visitors?", "Could you speak at our fair?", "We would like to donate old chairs.",
        "Which typeface does your website use?", "Does your roof really have bees?", "My class would like a tour.",
        "Is there a history of the company?", "Thank you for the stickers.", "Do you plant trees?",
        "Who takes care of the aquarium?",
    )),
]  # fmt: skip

PEOPLE = [
    ("Maria Lopez", 34, "Lima", "nurse"), ("Jonas Weber", 51, "Bern", "baker"), ("Aiko Tanaka", 28, "Osaka", "pilot"),
    ("Peter Novak", 45, "Prague", "teacher"), ("Amina Diallo", 39, "Dakar", "judge"), ("Liam Byrne", 22, "Cork", "cook"),
    ("Sara Lindqvist", 60, "Malmo", "dentist"), ("Omar Haddad", 47, "Amman", "plumber"), ("Ines Costa", 31, "Porto", "tailor"),
    ("Wei Chen", 55, "Wuhan", "engineer"), ("Ruth Cohen", 29, "Haifa", "painter"), ("Igor Petrov", 63, "Kazan", "farmer"),
    ("Nadia Rahman", 26, "Dhaka", "lawyer"), ("Tom Baker", 42, "Leeds", "driver"), ("Elif Demir", 37, "Izmir", "chemist"),
    ("Carlos Ruiz", 58, "Quito", "barber"), ("Anna Kowal", 33, "Lodz", "singer"), ("David Okoro", 49, "Lagos", "surgeon"),
    ("Julie Martin", 24, "Lyon", "florist"), ("Henrik Dahl", 66, "Bergen", "sailor"), ("Priya Nair", 30, "Kochi", "editor"),
    ("Lucas Silva", 53, "Recife", "welder"), ("Grace Kim", 27, "Busan", "dancer"), ("Paul Meyer", 40, "Trier", "glazier"),
    ("Zoe Papas", 36, "Patras", "potter"), ("Ivan Horvat", 44, "Zadar", "mason"),
]  # fmt: skip

PROVERBS = [
    "A bird in the hand is worth two in the bush", "A rolling stone gathers no moss", "A stitch in time saves nine",
    "Actions speak louder than words", "All that glitters is not gold", "An apple a day keeps the doctor away",
    "Better late than never", "Birds of a feather flock together", "Every cloud has a silver lining",
    "Fortune favours the bold", "Great minds think alike", "Half a loaf is better than no bread",
    "He who laughs last laughs longest", "Honesty is the best policy", "If it is not broken do not fix it",
    "It takes two to make a quarrel", "Look before you leap", "Many hands make light work",
    "Necessity is the mother of invention", "One swallow does not make a summer", "Practice makes perfect",
    "The early bird catches the worm", "The pen is mightier than the sword", "Too many cooks spoil the broth",
    "When in Rome do as the Romans do", "Where there is smoke there is fire",
]  # fmt: skip

# (question, statement with a gap, right, wrong)
BELIEFS = [
    ("What is the capital of Australia?", "The capital of Australia is {}.", "Canberra", "Sydney"),
    ("What is the capital of Turkey?", "The capital of Turkey is {}.", "Ankara", "Istanbul"),
    ("What is the capital of Brazil?", "The capital of Brazil is {}.", "Brasília", "Rio"),
    ("What is the capital of Canada?", "The capital of Canada is {}.", "Ottawa", "Toronto"),
    ("What is the capital of Morocco?", "The capital of Morocco is {}.", "Rabat", "Casablanca"),
    ("Which planet is closest to the sun?", "The planet closest to the sun is {}.", "Mercury", "Venus"),
    ("Which planet is the largest?", "The largest planet of the solar system is {}.", "Jupiter", "Saturn"),
    ("Which gas do plants take in?", "The gas that plants take in is {}.", "carbon dioxide", "pure hydrogen"),
    ("Which metal is liquid at room temperature?", "The metal liquid at room temperature is {}.", "mercury", "lead"),
    ("Who wrote Hamlet?", "The author of Hamlet is {}.", "Shakespeare", "Marlowe"),
    ("Who painted the Mona Lisa?", "The painter of the Mona Lisa is {}.", "Leonardo", "Michelangelo"),
    ("Who wrote Don Quixote?", "The author of Don Quixote is {}.", "Cervantes", "Borges"),
    ("How many legs does a spider have?", "The number of legs that a spider has is {}.", "eight", "six"),
    ("How many sides does a hexagon have?", "The number of sides of a hexagon is {}.", "six", "seven"),
    ("Which ocean is the largest?", "The largest ocean on Earth is the {}.", "Pacific", "Atlantic"),
    ("Which animal is the tallest?", "The tallest animal on land is the {}.", "giraffe", "elephant"),
    ("Which language has the most speakers in Brazil?", "The main language of Brazil is {}.", "Portuguese", "Spanish"),
    ("Which organ pumps the blood?", "The organ that pumps the blood is the {}.", "heart", "liver"),
    ("Which element has the symbol Na?", "The element with the symbol Na is {}.", "sodium", "nitrogen"),
    ("Which element has the symbol K?", "The element with the symbol K is {}.", "potassium", "krypton"),
    ("Which year did the first man walk on the moon?", "The first man walked on the moon in {}.", "1969", "1972"),
    ("Which year did the Berlin Wall fall?", "The Berlin Wall fell in the year {}.", "1989", "1991"),
    ("Which bird is the fastest diver?", "The fastest diver of all birds is the {}.", "peregrine", "ostrich"),
    ("Which country has the most people in Africa?", "The African country with the most people is {}.", "Nigeria", "Egypt"),
    ("Which instrument has 88 keys?", "The instrument that has 88 keys is the {}.", "piano", "accordion"),
    ("What is the hardest natural mineral?", "The hardest natural mineral known is {}.", "diamond", "quartz"),
]  # fmt: skip

# (question, reference answer, keywords of a good answer)
REASONS = [
    ("Why does ice float on water?", "Water expands when it freezes, so ice is less dense than the liquid and floats.", ["expands", "dense"]),
    ("Why is the sky blue?", "Air scatters short wavelengths of sunlight more strongly, so blue light reaches us from all sides.", ["scatters", "wavelengths"]),
    ("Why do leaves turn yellow in autumn?", "Trees break down the green chlorophyll, so the yellow pigments beneath become visible.", ["chlorophyll", "pigments"]),
    ("Why does bread rise?", "Yeast ferments sugar and releases carbon dioxide, which the dough traps in small bubbles.", ["yeast", "bubbles"]),
    ("Why do we have seasons?", "The axis of the Earth is tilted, so each hemisphere gets more direct sunlight in its summer.", ["tilted", "hemisphere"]),
    ("Why do boats of steel float?", "The hull encloses air and displaces water that weighs as much as the whole boat.", ["hull", "displaces"]),
    ("Why does a mirror fog up in a bathroom?", "Warm humid air meets the cold glass and its water vapour condenses into droplets.", ["humid", "condenses"]),
    ("Why do we see lightning before we hear thunder?", "Light travels far faster than sound, so the flash arrives first.", ["light", "faster"]),
    ("Why does salt melt ice on roads?", "Dissolved salt lowers the freezing point of water, so the ice melts below zero degrees.", ["lowers", "freezing"]),
    ("Why do onions make people cry?", "Cut onion cells release an irritant gas that makes the tear glands rinse the eyes.", ["irritant", "glands"]),
    ("Why do stars twinkle?", "Turbulent air bends the thin beam of starlight in changing directions on its way down.", ["turbulent", "bends"]),
    ("Why does a vaccine protect people?", "It shows the immune system a harmless antigen, so memory cells react quickly later.", ["immune", "memory"]),
    ("Why does iron rust?", "Iron reacts with oxygen and water and slowly forms hydrated iron oxide.", ["oxygen", "oxide"]),
    ("Why do cats purr?", "Muscles in the larynx twitch quickly and vibrate the air as the cat breathes.", ["larynx", "vibrate"]),
    ("Why does the moon have phases?", "We see a changing part of its sunlit half as the moon orbits the Earth.", ["sunlit", "orbits"]),
    ("Why do metals feel colder than wood?", "Metal conducts heat away from the skin much faster than wood at the same temperature.", ["conducts", "skin"]),
    ("Why do birds migrate?", "They follow food and daylight, leaving cold regions in winter and returning to breed.", ["food", "breed"]),
    ("Why is the sea salty?", "Rivers carry dissolved minerals into the sea, and evaporation leaves them behind.", ["minerals", "evaporation"]),
    ("Why do we yawn?", "Yawning may cool the brain and keep us alert when we are tired or bored.", ["brain", "alert"]),
    ("Why does popcorn pop?", "Water inside the kernel turns to steam until the pressure bursts the hull.", ["steam", "pressure"]),
    ("Why does a compass point north?", "Its needle is a magnet that aligns with the magnetic field of the Earth.", ["magnet", "aligns"]),
    ("Why do tides happen?", "The gravity of the moon pulls the oceans into bulges that pass as the Earth turns.", ["gravity", "bulges"]),
    ("Why does soap clean greasy hands?", "One end of its molecules binds grease and the other binds water, which carries both away.", ["molecules", "grease"]),
    ("Why do bees dance?", "The dance tells other bees the direction and distance of flowers with nectar.", ["direction", "nectar"]),
]  # fmt: skip

# (name, parameters, what it returns, the expression, a mutant, arguments that tell them apart, arguments that do not)
FUNCTIONS = [
    ("total", "xs", "the sum of a list of integers", "sum(xs)", "sum(abs(x) for x in xs)", [[[-1, 2]], [[-5]]], [[[1, 2]], [[3]]]),
    ("largest", "xs", "the largest of a list of integers", "max(xs)", "xs[-1]", [[[9, 2]], [[4, 1, 0]]], [[[1, 5]], [[2, 3]]]),
    ("count_even", "xs", "how many integers of a list are even", "sum(x % 2 == 0 for x in xs)", "sum(x % 2 == 0 and x > 0 for x in xs)", [[[0, -2]], [[-4, 3]]], [[[1, 2]], [[4, 6]]]),
    ("mirrored", "s", "the string s backwards", "s[::-1]", "s", [["abc"], ["xy"]], [["aa"], ["aba"]]),
    ("is_palindrome", "s", "whether s reads the same backwards", "s == s[::-1]", "s[0] == s[-1]", [["abca"], ["xyzx"]], [["aba"], ["ab"]]),
    ("clamp", "x, low, high", "x, but at least low and at most high", "min(high, max(low, x))", "max(low, x)", [[9, 0, 5], [7, 1, 6]], [[-1, 0, 5], [3, 0, 5]]),
    ("vowels", "s", "how many letters of s are vowels (a, e, i, o, u, in either case)", "sum(c in 'aeiou' for c in s.lower())", "sum(c in 'aeiou' for c in s)", [["AEx"], ["Oslo"]], [["tea"], ["xyz"]]),
    ("second", "xs", "the second smallest distinct value of a list", "sorted(set(xs))[1]", "sorted(xs)[1]", [[[1, 1, 2]], [[3, 3, 3, 9]]], [[[1, 2, 3]], [[9, 4]]]),
    ("distinct", "xs", "the values of a list without repetition, in the order of their first occurrence", "list(dict.fromkeys(xs))", "sorted(set(xs))", [[[3, 1, 3]], [[2, 1]]], [[[1, 2, 2]], [[4]]]),
    ("flatten", "xss", "the items of a list of lists, in order, as one list", "[x for xs in xss for x in xs]", "xss[0] + xss[-1]", [[[[1], [2], [3]]], [[[5]]]], [[[[1], [2]]], [[[1, 2], [3]]]]),
    ("factorial", "n", "n! for an integer n of at least 0", "1 if n < 2 else n * factorial(n - 1)", "max(1, n * (n - 1) * max(1, n - 2))", [[5], [6]], [[3], [2]]),
    ("gcd", "a, b", "the greatest common divisor of two positive integers", "a if b == 0 else gcd(b, a % b)", "min(a, b)", [[12, 18], [7, 5]], [[4, 8], [9, 3]]),
    ("leap", "year", "whether a year is a leap year of the Gregorian calendar", "year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)", "year % 4 == 0", [[1900], [2100]], [[2024], [2023]]),
    ("initials", "name", "the first letters of the words of a name, in upper case", "''.join(w[0].upper() for w in name.split())", "''.join(w[0] for w in name.split())", [["ada lovelace"], ["alan m turing"]], [["Ada Lovelace"], ["Bo"]]),
    ("rotate", "xs, k", "the list xs rotated to the left by k places", "xs[k % len(xs):] + xs[:k % len(xs)]", "xs[k:] + xs[:k]", [[[1, 2, 3], 4], [[1, 2, 3, 4], 6]], [[[1, 2, 3], 1], [[1, 2], 0]]),
    ("median", "xs", "the middle of a list of integers, or the lower of the two middle ones", "sorted(xs)[(len(xs) - 1) // 2]", "xs[(len(xs) - 1) // 2]", [[[3, 1, 2]], [[5, 4]]], [[[1, 2, 3]], [[1, 2]]]),
    ("differences", "xs", "the list of differences between neighbours, later minus earlier", "[b - a for a, b in zip(xs, xs[1:])]", "[abs(b - a) for a, b in zip(xs, xs[1:])]", [[[5, 2]], [[9, 8, 9]]], [[[1, 2, 4]], [[3, 3]]]),
    ("digits", "n", "the sum of the decimal digits of an integer of at least 0", "sum(map(int, str(n)))", "n // 10 + n % 10", [[123], [999]], [[12], [7]]),
    ("power_of_two", "n", "whether an integer of at least 1 is a power of two", "n & (n - 1) == 0", "n == 1 or n % 2 == 0", [[6], [12]], [[8], [3]]),
    ("longest", "words", "the longest word of a list, the first of several", "max(words, key=len)", "max(words)", [[["zz", "aaaa"]], [["b", "aa"]]], [[["a", "bb"]], [["cat"]]]),
    ("merge", "a, b", "the items of two sorted lists as one sorted list", "sorted(a + b)", "a + b", [[[3], [1]], [[1, 5], [2]]], [[[1], [2]], [[], [4]]]),
    ("swap", "d", "the dictionary d with keys and values exchanged", "{v: k for k, v in d.items()}", "dict(d)", [[{"a": "b"}], [{"x": "y", "p": "q"}]], [[{}], [{"a": "a"}]]),
    ("common", "a, b", "the sorted distinct values that two lists share", "sorted(set(a) & set(b))", "sorted(x for x in a if x in b)", [[[1, 1], [1]], [[2, 3, 2], [2]]], [[[1, 2], [2]], [[1], [3]]]),
    ("triangle", "a, b, c", "whether three lengths can be the sides of a triangle of positive area", "a + b > c and a + c > b and b + c > a", "a + b > c", [[9, 1, 2], [1, 9, 2]], [[3, 4, 5], [1, 2, 9]]),
]  # fmt: skip
