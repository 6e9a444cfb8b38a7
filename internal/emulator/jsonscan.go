package emulator

import (
	"errors"
	"fmt"
)

// scanner walks JSON and checks it by the grammar, without building anything: at
// benchmark rates a decoder here would cost more than the sender under test.
type scanner struct {
	b []byte
	i int
}

const maxJSONDepth = 10000

var errJSONEnd = errors.New("the JSON text ends too early")

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.i == len(s.b) {
		return 0
	}
	return s.b[s.i]
}

func (s *scanner) expect(c byte) error {
	if got := s.peek(); got != c {
		if s.i == len(s.b) {
			return errJSONEnd
		}
		return fmt.Errorf("%q where %q belongs, at byte %d", got, c, s.i)
	}
	s.i++
	return nil
}

// end makes sure that nothing follows.
func (s *scanner) end() error {
	if s.peek(); s.i < len(s.b) {
		return fmt.Errorf("unexpected %q at byte %d", s.b[s.i], s.i)
	}
	return nil
}

// array reads an array, whose elements element reads.
func (s *scanner) array(element func() error) error {
	if err := s.expect('['); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.i++
		return nil
	}
	for {
		s.space()
		if err := element(); err != nil {
			return err
		}
		if s.peek() == ']' {
			s.i++
			return nil
		}
		if err := s.expect(','); err != nil {
			return err
		}
	}
}

// object reads an object, whose values member reads. key is without its quotes.
func (s *scanner) object(member func(key []byte) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.i++
		return nil
	}
	for {
		s.space()
		from := s.i
		if err := s.text(); err != nil {
			return err
		}
		key := s.b[from+1 : s.i-1]
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		if s.peek() == '}' {
			s.i++
			return nil
		}
		if err := s.expect(','); err != nil {
			return err
		}
	}
}

// value reads any value.
func (s *scanner) value(depth int) error {
	if depth > maxJSONDepth {
		return errors.New("the JSON text is nested too deeply")
	}
	switch c := s.peek(); {
	case c == '"':
		return s.text()
	case c == '{':
		return s.object(func([]byte) error { return s.value(depth + 1) })
	case c == '[':
		return s.array(func() error { return s.value(depth + 1) })
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	case s.i == len(s.b):
		return errJSONEnd
	}
	return fmt.Errorf("unexpected %q at byte %d", s.b[s.i], s.i)
}

func (s *scanner) word(w string) error {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return fmt.Errorf("unexpected word at byte %d", s.i)
	}
	s.i += len(w)
	return nil
}

func (s *scanner) text() error {
	if s.i == len(s.b) || s.b[s.i] != '"' {
		return fmt.Errorf("a text is missing at byte %d", s.i)
	}
	for i := s.i + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.i = i + 1
			return nil
		case c < ' ':
			return fmt.Errorf("control character in a text at byte %d", i)
		case c == '\\':
			i++
			if i == len(s.b) {
				return errJSONEnd
			}
			switch s.b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					if i++; i == len(s.b) || !isHex(s.b[i]) {
						return fmt.Errorf("broken \\u escape at byte %d", i)
					}
				}
			default:
				return fmt.Errorf("unknown escape at byte %d", i)
			}
		}
	}
	return errJSONEnd
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *scanner) number() error {
	at := s.i
	if s.b[s.i] == '-' {
		s.i++
	}
	switch {
	case s.i < len(s.b) && s.b[s.i] == '0':
		s.i++
	case !s.digits():
		return fmt.Errorf("broken number at byte %d", at)
	}
	if s.i < len(s.b) && s.b[s.i] == '.' {
		s.i++
		if !s.digits() {
			return fmt.Errorf("broken number at byte %d", at)
		}
	}
	if s.i < len(s.b) && s.b[s.i]|0x20 == 'e' {
		s.i++
		if s.i < len(s.b) && (s.b[s.i] == '+' || s.b[s.i] == '-') {
			s.i++
		}
		if !s.digits() {
			return fmt.Errorf("broken number at byte %d", at)
		}
	}
	return nil
}
