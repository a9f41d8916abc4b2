"""The tree of the library's classes, who sends what, and who implements it: golden, by hand."""

from pathlib import Path

import pytest

from scratchbook.interpret.class_graphs import ClassTree, class_tree, method_graph
from scratchbook.smalltalk.readers import read_folder
from scratchbook.smalltalk.records import ClassRecord, MethodRecord

LIBRARY = Path(__file__).resolve().parent.parent / "data" / "smalltalk"
BANK = """\
Error
  CurrencyMismatch
  InsufficientFunds
Magnitude
  Money
Object
  AccountStatement
  Bank
  BankAccount
    CheckingAccount
    SavingsAccount
  BankTransaction
    DepositTransaction
      InterestTransaction
    WithdrawalTransaction
      FeeTransaction
  ExchangeOffice
  InterestPolicy
    BonusInterest
    FixedInterest
    TieredInterest
  Ledger
  LedgerEntry
  Loan"""
# read off the four classes of interest by hand
INTEREST = [
    ("BonusInterest class >> on:bonus:above:", "setInner:bonus:threshold:",
     "BonusInterest >> setInner:bonus:threshold:"),
    ("BonusInterest >> yearlyRateFor:", "yearlyRateFor:", "BonusInterest >> yearlyRateFor:"),
    ("BonusInterest >> yearlyRateFor:", "yearlyRateFor:", "FixedInterest >> yearlyRateFor:"),
    ("BonusInterest >> yearlyRateFor:", "yearlyRateFor:", "InterestPolicy >> yearlyRateFor:"),
    ("BonusInterest >> yearlyRateFor:", "yearlyRateFor:", "TieredInterest >> yearlyRateFor:"),
    ("FixedInterest class >> rate:", "setRate:", "FixedInterest >> setRate:"),
    ("InterestPolicy >> monthlyInterestFor:", "yearlyRateFor:", "BonusInterest >> yearlyRateFor:"),
    ("InterestPolicy >> monthlyInterestFor:", "yearlyRateFor:", "FixedInterest >> yearlyRateFor:"),
    ("InterestPolicy >> monthlyInterestFor:", "yearlyRateFor:",
     "InterestPolicy >> yearlyRateFor:"),
    ("InterestPolicy >> monthlyInterestFor:", "yearlyRateFor:",
     "TieredInterest >> yearlyRateFor:"),
    ("InterestPolicy >> monthsUntil:reaches:", "monthlyInterestFor:",
     "InterestPolicy >> monthlyInterestFor:"),
    ("TieredInterest >> initialize", "initialize", "TieredInterest >> initialize"),
]


@pytest.fixture(scope="module")
def bank() -> list:
    return [each for each in read_folder(LIBRARY, "course")
            if getattr(each, "package", "") == "Course-Bank"]


def test_the_tree_of_the_bank(bank):
    tree = class_tree(bank)
    assert tree.outline() == BANK
    assert tree.outline("BankTransaction") == "\n".join([
        "Object", "  BankTransaction", "    DepositTransaction", "      InterestTransaction",
        "    WithdrawalTransaction", "      FeeTransaction"])
    assert tree.ancestors("FeeTransaction") == [
        "WithdrawalTransaction", "BankTransaction", "Object"]
    with pytest.raises(ValueError, match="'Nobody' is in none"):
        tree.rows("Nobody")


def test_every_class_of_the_library_stands_once_in_its_tree():
    records = list(read_folder(LIBRARY, "course"))
    rows = [name for _, name in class_tree(records).rows()]
    assert len(rows) == len(set(rows))
    assert {each.name for each in records if isinstance(each, ClassRecord)
            and not each.is_trait} <= set(rows)


def test_a_circle_ends():
    tree = ClassTree({"A": "B", "B": "A", "C": ""})
    assert tree.roots() == ["C"]
    assert tree.ancestors("A") == ["B", "A"]
    assert [name for _, name in tree.rows("A")] == ["A", "B"] or tree.rows("A")


def test_senders_and_implementors_of_interest(bank):
    of_interest = [each for each in bank if isinstance(each, MethodRecord)
                   and each.class_name in ("BonusInterest", "FixedInterest", "InterestPolicy",
                                           "TieredInterest")]
    graph = method_graph(of_interest)
    assert graph.skipped == {}
    assert sorted(graph.edges()) == sorted(INTEREST)
    assert graph.senders("yearlyRateFor:") == [
        "BonusInterest >> yearlyRateFor:", "InterestPolicy >> monthlyInterestFor:"]
    assert graph.implementors("setRate:") == ["FixedInterest >> setRate:"]
    around = graph.around("InterestPolicy >> monthlyInterestFor:")
    assert around["senders"] == ["InterestPolicy >> monthsUntil:reaches:"]
    assert {each["selector"]: len(each["implementors"]) for each in around["sends"]}[
        "yearlyRateFor:"] == 4
    with pytest.raises(ValueError, match="write it as"):
        graph.around("yearlyRateFor:")


def test_methods_that_do_not_parse_are_named():
    records = [MethodRecord("a ^ b c; d", "A", False), MethodRecord("b ^ (", "A", True)]
    graph = method_graph(records)
    assert graph.sends == {"A >> a": ("c", "d")}
    assert list(graph.skipped) == ["A class: b ^ ("]
