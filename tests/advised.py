"""What a message says to write, taken out of it to be run."""


def call_in(error, start):
    """The first call in an error's message that begins with ``start``, up to the parenthesis that closes it."""
    text = str(error.value)
    begin = text.index(start)
    depth = 0
    for place, character in enumerate(text[begin:], begin):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == ")" and depth == 0:
            return text[begin : place + 1]
    raise AssertionError(f"no call of {start} in {text}")
