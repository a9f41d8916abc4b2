"""Says at the end of a run what share of the solutions' mutants the checks refused."""


def pytest_terminal_summary(terminalreporter):
    counts = [value for outcome in ("passed", "failed")
              for report in terminalreporter.stats.get(outcome, [])
              for key, value in report.user_properties if key == "mutants"]
    if counts:
        total, refused = (sum(column) for column in zip(*counts, strict=True))
        terminalreporter.write_line(f"{refused} of {total} mutants of {len(counts)} solutions "
                                    f"refused ({refused / total:.1%})")
