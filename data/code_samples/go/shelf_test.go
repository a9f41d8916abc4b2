package shelf

import (
	"errors"
	"testing"
	"time"
)

func fixed() time.Time { return time.Date(2024, 2, 1, 9, 0, 0, 0, time.UTC) }

func TestLendSetsTheDay(t *testing.T) {
	s := New(fixed)
	s.Add(Book{ISBN: "1", Title: "Maps", Copies: 1})
	loan, err := s.Lend("1", "Ada")
	if err != nil {
		t.Fatalf("Lend: %v", err)
	}
	if want := fixed().AddDate(0, 0, 21); !loan.DueOn.Equal(want) {
		t.Errorf("DueOn = %v, want %v", loan.DueOn, want)
	}
}

func TestNobodyTakesTheSecondCopyOfOne(t *testing.T) {
	s := New(fixed)
	s.Add(Book{ISBN: "1", Title: "Maps", Copies: 1})
	if _, err := s.Lend("1", "Ada"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lend("1", "Bob"); !errors.Is(err, ErrLentOut) {
		t.Errorf("got %v, want ErrLentOut", err)
	}
}

func TestUnknownBook(t *testing.T) {
	if _, err := New(fixed).Lend("7", "Ada"); err == nil {
		t.Error("an unknown book was lent")
	}
}
