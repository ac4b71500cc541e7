"""The error of a command that was used wrongly; its text is all that a user sees."""


class UserError(ValueError):
    """Something in the command, the file or the table is wrong; the message says where, and the fix."""


def listed(names: object, most: int = 12) -> str:
    """Names in a row, not too many.

    Example:
        >>> listed(["a", "b"]), listed([]), listed(range(3), 2)
        ('a, b', 'none', '0, 1, ...')
    """
    names = [str(name) for name in names]  # type: ignore[attr-defined]
    shown = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return shown or "none"
