//go:build !unix

package filestore

import (
	"context"
	"os"
)

// lockDir doesn't lock here: only one process may change the file.
func lockDir(context.Context, string) (unlock func(), err error) { return func() {}, nil }

func keepOwner(*os.File, os.FileInfo) {}
