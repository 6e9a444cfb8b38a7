package jsonwalk

import "fmt"

// maxDepth bounds the recursion of Validate. It is more than the 10,000 of
// encoding/json, so that an array of values that encoding/json accepts is valid.
const maxDepth = 20_000

// Validate returns an error unless doc is one JSON value by the grammar of
// encoding/json. It is faster than a decoder because it builds nothing.
func Validate(doc []byte) error {
	end, ok := validateValue(doc, skipSpace(doc, 0), 0)
	if ok {
		end = skipSpace(doc, end)
		ok = end == len(doc)
	}
	if !ok {
		return fmt.Errorf("not valid JSON at byte %d", end)
	}
	return nil
}

// validateValue returns the index after the value that starts at i or, if it
// isn't valid, the index of what is wrong. So do the other validate functions.
func validateValue(doc []byte, i, depth int) (end int, ok bool) {
	if i >= len(doc) {
		return i, false
	}
	switch doc[i] {
	case '"':
		return validateString(doc, i)
	case '{', '[':
		return validateCompound(doc, i, depth)
	case 't':
		return validateWord(doc, i, "true")
	case 'f':
		return validateWord(doc, i, "false")
	case 'n':
		return validateWord(doc, i, "null")
	}
	return validateNumber(doc, i)
}

func validateCompound(doc []byte, i, depth int) (end int, ok bool) {
	if depth == maxDepth {
		return i, false
	}
	object, closing := doc[i] == '{', doc[i]+2 // in ASCII, the closing bracket is the next but one
	i = skipSpace(doc, i+1)
	if i < len(doc) && doc[i] == closing {
		return i + 1, true
	}
	for {
		if object {
			if i, ok = validateString(doc, i); !ok {
				return i, false
			}
			if i = skipSpace(doc, i); i >= len(doc) || doc[i] != ':' {
				return i, false
			}
			i = skipSpace(doc, i+1)
		}
		if i, ok = validateValue(doc, i, depth+1); !ok {
			return i, false
		}
		switch i = skipSpace(doc, i); {
		case i < len(doc) && doc[i] == closing:
			return i + 1, true
		case i >= len(doc) || doc[i] != ',':
			return i, false
		}
		i = skipSpace(doc, i+1)
	}
}

func validateString(doc []byte, i int) (end int, ok bool) {
	if i >= len(doc) || doc[i] != '"' {
		return i, false
	}
	for i++; i < len(doc); i++ {
		if plain[doc[i]] { // nearly always; one look-up
			continue
		}
		if doc[i] == '"' {
			return i + 1, true
		}
		if doc[i] != '\\' {
			return i, false
		}
		if i++; i >= len(doc) {
			return i, false
		}
		switch doc[i] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			for range 4 {
				if i++; i >= len(doc) || !isHex(doc[i]) {
					return i, false
				}
			}
		default:
			return i, false
		}
	}
	return i, false
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (plain [256]bool) {
	for c := range plain {
		plain[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return plain
}()

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func validateWord(doc []byte, i int, word string) (end int, ok bool) {
	end = i + len(word)
	if end > len(doc) || string(doc[i:end]) != word {
		return i, false
	}
	return end, true
}

// IsNumber reports whether s is a JSON number and nothing else.
func IsNumber(s []byte) bool {
	end, ok := validateNumber(s, 0)
	return ok && end == len(s)
}

func validateNumber(doc []byte, i int) (end int, ok bool) {
	if i < len(doc) && doc[i] == '-' {
		i++
	}
	if i < len(doc) && doc[i] == '0' {
		i++
	} else if i, ok = validateDigits(doc, i); !ok {
		return i, false
	}
	if i < len(doc) && doc[i] == '.' {
		if i, ok = validateDigits(doc, i+1); !ok {
			return i, false
		}
	}
	if i < len(doc) && doc[i]|0x20 == 'e' {
		i++
		if i < len(doc) && (doc[i] == '+' || doc[i] == '-') {
			i++
		}
		return validateDigits(doc, i)
	}
	return i, true
}

func validateDigits(doc []byte, i int) (end int, ok bool) {
	start := i
	for i < len(doc) && isDigit(doc[i]) {
		i++
	}
	return i, i > start
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
