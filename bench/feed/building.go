package feed

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// The building's size: 96 rooms, 384 sensors.
const (
	floors        = 8
	roomsPerFloor = 12
)

var roomNames = [roomsPerFloor]string{
	"Ampere", "Bohr", "Curie", "Dirac", "Euler", "Franklin",
	"Galois", "Hopper", "Kepler", "Lovelace", "Meitner", "Noether",
}

// kind is what a sensor measures.
type kind uint8

const (
	temperature kind = iota
	carbonDioxide
	motion
	humidity

	numKinds
)

// kinds are the sensors' DataType and the suffix of their hardware id.
var kinds = [numKinds]struct{ dataType, suffix []byte }{
	temperature:   {[]byte("Temperature"), []byte("TEMP")},
	carbonDioxide: {[]byte("CarbonDioxide"), []byte("CO2")},
	motion:        {[]byte("Motion"), []byte("PIR")},
	humidity:      {[]byte("Humidity"), []byte("HUM")},
}

// stale is the carbon dioxide, in ppm, from which a room's air counts as poor.
const stale = 1000

// outside is the carbon dioxide, in ppm, of the air outdoors.
const outside = 410

type building struct {
	id     []byte
	rooms  []room
	floors [floors][]byte // ids
}

type room struct {
	id      []byte
	name    []byte // 2.07 Galois
	floor   int
	device  []byte // id of the device of all of the room's sensors
	sensors [numKinds]sensor
}

type sensor struct {
	id       []byte
	hardware []byte
	kind     kind
	n        int // the value, in the kind's own step: tenths, ppm, 0 or 1
	value    []byte
	previous []byte // nil before the second change
	known    bool   // it has changed once: the graph has a value of it
}

func newBuilding(rng *rand.Rand) *building {
	b := &building{id: guid(nil, rng)}
	for f := range b.floors {
		b.floors[f] = guid(nil, rng)
		for i, name := range roomNames {
			r := room{id: guid(nil, rng), device: guid(nil, rng), floor: f, name: fmt.Appendf(nil, "%d.%02d %s", f+1, i+1, name)}
			mac := rng.Uint64()
			for k := range numKinds {
				r.sensors[k] = newSensor(k, mac, rng)
			}
			b.rooms = append(b.rooms, r)
		}
	}
	return b
}

func newSensor(k kind, mac uint64, rng *rand.Rand) sensor {
	s := sensor{id: guid(nil, rng), kind: k, n: [numKinds]int{
		temperature:   200 + rng.IntN(40),
		carbonDioxide: 450 + rng.IntN(500),
		motion:        rng.IntN(2),
		humidity:      350 + rng.IntN(200),
	}[k]}
	s.hardware = fmt.Appendf(nil, "00FF%08X-%s", uint32(mac), kinds[k].suffix)
	s.value = s.appendValue(nil)
	return s
}

// step moves the sensor to its next value, which is always a different one: an
// unchanged reading is no SensorChange.
func (s *sensor) step(occupied bool, rng *rand.Rand) {
	switch s.kind {
	case temperature:
		s.n = drift(s.n, 215, 20, 1+rng.IntN(3), rng)
	case humidity:
		s.n = drift(s.n, 450, 80, 1+rng.IntN(8), rng)
	case carbonDioxide:
		// It rises with people in the room, and falls to the outdoors' without.
		home := 480
		if occupied {
			home = 1150
		}
		s.n = drift(s.n, home, 250, 5+rng.IntN(40), rng)
		if s.n < outside {
			s.n = 2*outside - s.n + 1
		}
	case motion:
		s.n = 1 - s.n
	}
	if s.known {
		s.previous, s.value = s.value, s.previous
	}
	s.known = true
	s.value = s.appendValue(s.value[:0])
}

// drift returns n after one step, more probably towards home the further n is
// from it. Values mostly stay within reach of home.
func drift(n, home, reach, by int, rng *rand.Rand) int {
	towards := 50 + min(max(n-home, home-n)*45/reach, 45) // percent
	if (n < home) == (rng.IntN(100) < towards) {
		return n + by
	}
	return n - by
}

func (s *sensor) appendValue(buf []byte) []byte {
	switch s.kind {
	case motion:
		if s.n == 1 {
			return append(buf, "True"...)
		}
		return append(buf, "False"...)
	case carbonDioxide:
		return strconv.AppendInt(buf, int64(s.n), 10)
	default:
		buf = strconv.AppendInt(buf, int64(s.n/10), 10)
		return append(buf, '.', byte('0'+s.n%10))
	}
}

func (r *room) occupied() bool { return r.sensors[motion].n == 1 }

// The two states of a room, in the words of the documented sample.
var (
	roomGood = []byte("Room is available and air is fresh")
	roomBad  = []byte("Room is not available or air quality is poor")
)

// state returns what the user-defined function computes from the room's sensors.
func (r *room) state() []byte {
	if r.occupied() || r.sensors[carbonDioxide].n >= stale {
		return roomBad
	}
	return roomGood
}

// guid appends a random UUID of version 4.
func guid(buf []byte, rng *rand.Rand) []byte {
	a, b := rng.Uint64(), rng.Uint64()
	a = a&^0xf000 | 0x4000
	b = b&^(0xc0<<56) | 0x80<<56
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], a)
	binary.BigEndian.PutUint64(raw[8:], b)
	var text [36]byte
	hex.Encode(text[0:8], raw[0:4])
	hex.Encode(text[9:13], raw[4:6])
	hex.Encode(text[14:18], raw[6:8])
	hex.Encode(text[19:23], raw[8:10])
	hex.Encode(text[24:], raw[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return append(buf, text[:]...)
}
