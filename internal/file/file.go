// Package file reads the files that an operator names: configuration, endpoints,
// tokens, passwords, keys, certificates. Such a path may lead to something that is
// no file, or to one that grows for ever, by mistake or because somebody else may
// write its directory.
package file

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// MaxSize is the size of the largest file that is read. Ten thousand endpoints
// take 6 MiB, with encrypted keys 14, and with post-quantum ones 53; the other files
// are of a few KiB.
const MaxSize = 64 << 20

var errTooLarge = fmt.Errorf("is larger than %d MiB", MaxSize>>20)

// Read returns the content of a regular file. Anything else is an error that says
// what is there: a pipe or a device would block until somebody writes to it.
// Errors have the path. A file system that doesn't answer blocks Read, so the
// caller must not hold a lock that others need.
func Read(path string) ([]byte, error) {
	// Looked at before it is opened: opening alone does something to some devices.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := check(info); err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0) // it may be another file by now
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	if info, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := check(info); err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err == nil && len(data) > MaxSize { // it has grown, or its size is not known
		err = &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

func check(info fs.FileInfo) error {
	kind := ""
	switch mode := info.Mode(); {
	case mode.IsRegular():
		if info.Size() > MaxSize {
			return errTooLarge
		}
		return nil
	case mode.IsDir():
		kind = "directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "pipe"
	case mode&fs.ModeSocket != 0:
		kind = "socket"
	case mode&fs.ModeDevice != 0:
		kind = "device"
	default:
		return errors.New("is not a regular file")
	}
	return errors.New("is a " + kind + ", not a regular file")
}

// KeyPair reads a certificate and its key, PEM both.
func KeyPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := Read(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := Read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}
