// Package shelf keeps books in order and says who has borrowed them.
package shelf

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"
)

// ErrLentOut is returned when every copy of a book is with a reader.
var ErrLentOut = errors.New("shelf: every copy is lent out")

const loanDays = 21

// Book is one title. The zero value is not ready for use: call New.
type Book struct {
	ISBN   string
	Title  string
	Author string
	Copies int
}

// Loan says who has a copy, and until when.
type Loan struct {
	Reader string
	DueOn  time.Time
}

// Shelf holds books and loans. It is safe for several goroutines.
type Shelf struct {
	mu    sync.Mutex
	books map[string]Book
	loans map[string][]Loan
	now   func() time.Time
}

// New returns an empty shelf that reads the time from now.
func New(now func() time.Time) *Shelf {
	return &Shelf{books: map[string]Book{}, loans: map[string][]Loan{}, now: now}
}

// Add puts a book on the shelf, or more copies of one that is there.
func (s *Shelf) Add(book Book) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.books[book.ISBN]; ok {
		book.Copies += old.Copies
	}
	s.books[book.ISBN] = book
}

// Lend gives a copy to a reader. It fails for an unknown book and when none is left.
func (s *Shelf) Lend(isbn, reader string) (Loan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	book, ok := s.books[isbn]
	if !ok {
		return Loan{}, fmt.Errorf("shelf: no book with ISBN %q", isbn)
	}
	if len(s.loans[isbn]) >= book.Copies {
		return Loan{}, ErrLentOut
	}
	loan := Loan{Reader: reader, DueOn: s.now().AddDate(0, 0, loanDays)}
	s.loans[isbn] = append(s.loans[isbn], loan)
	return loan, nil
}

// Overdue lists the readers who are late, the latest first.
func (s *Shelf) Overdue() []Loan {
	s.mu.Lock()
	defer s.mu.Unlock()
	var late []Loan
	for _, loans := range s.loans {
		for _, loan := range loans {
			if loan.DueOn.Before(s.now()) {
				late = append(late, loan)
			}
		}
	}
	sort.Slice(late, func(i, j int) bool { return late[i].DueOn.Before(late[j].DueOn) })
	return late
}
