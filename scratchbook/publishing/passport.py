"""The card below a chapter's title: what the chapter costs, needs, and builds on.

It is drawn from the notebook's own `scratchbook` metadata, so it cannot disagree with what
`scratchbook list` prints.
"""

from scratchbook.publishing.chapters import PROFILES


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 45 s, 12 min, 4 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def facts(passport: dict) -> list[tuple[str, str]]:
    """The lines of the card as (name, MyST text), the absent ones left out."""
    lines = [
        ("Time", _per_profile(passport.get("budget_seconds", {}), duration)),
        ("Memory", f"{passport['memory_mb']} MB" if passport.get("memory_mb") else ""),
        ("Downloads", _per_profile(passport.get("downloads_mb", {}), _megabytes)),
        ("Read first", ", ".join(f"{{doc}}`/chapters/{name}`"
                                 for name in passport.get("needs", []))),
        ("Package", ", ".join(f"{{py:mod}}`{name}`" for name in passport.get("modules", []))),
        ("Papers", ", ".join(f"{{cite}}`{key}`" for key in passport.get("papers", []))),
    ]
    return [(name, text) for name, text in lines if text]


def card(passport: dict) -> str:
    """The passport as a MyST block, or nothing for a notebook that carries none."""
    lines = facts(passport)
    if not lines:
        return ""
    body = "\n\n".join(f"{name}\n: {text}" for name, text in lines)
    return f"::::{{div}} sb-passport\n{body}\n::::"


def _per_profile(values: dict, show) -> str:
    if not values:
        return ""
    if not any(values.values()):
        return "nothing"
    known = [name for name in PROFILES if name in values]
    return ", ".join(f"{show(values[name])} {name}" for name in known)


def _megabytes(value: float) -> str:
    return f"{value:g} MB" if value else "nothing"
