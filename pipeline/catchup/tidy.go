package catchup

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"twinegress/internal/untrusted"
)

// writeWitnesses writes the lists that are due beside the commits.
func (k *Keeper) writeWitnesses(ctx context.Context, now time.Time) {
	if k.store == nil {
		return
	}
	for _, p := range k.all() {
		p.witness.mu.Lock()
		dirty := p.witness.dirty
		p.witness.mu.Unlock()
		if !dirty {
			continue
		}
		if k.store.available(now) != nil {
			return
		}
		ensuring, cancel := context.WithTimeout(ctx, storeTimeout)
		err := k.store.ensure(ensuring)
		cancel()
		if err != nil {
			k.store.note(err, now)
			return
		}
		p.writeWitness(now, membersAfter) //nolint:contextcheck // the record outlasts its caller
	}
}

// tidy deletes lists that no commit names any more. Which one the last commit names is
// asked of the brokers: that this copy wanted to make a later one is no proof.
func (k *Keeper) tidy(ctx context.Context, now time.Time) {
	var stored []*partition
	for _, p := range k.all() {
		p.composing.Lock()
		if len(p.names) > 1 || len(p.names) == 1 && named(p.names[0].name) != p.text {
			stored = append(stored, p)
		}
		p.composing.Unlock()
	}
	if len(stored) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	committed, err := k.admin.FetchOffsets(ctx, k.options.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		k.options.Log.Debug("lists of positions that are of no use any more stay for now", zap.String("problem", untrusted.Text(err.Error())))
		return
	}
	for _, p := range stored {
		if c, ok := committed.Lookup(p.of.topic, p.of.number); ok && c.Err == nil {
			p.forgetBefore(c.Metadata, now.Add(-tidyInterval)) //nolint:contextcheck // the records outlast their caller
		}
	}
}

// forgetBefore deletes the lists before the one that a commit names, if they are older
// than that as well: a commit that was sent before this one may still be under way.
func (p *partition) forgetBefore(committed string, before time.Time) {
	_, name, err := parseMetadata(committed)
	if err != nil {
		return // another program's: the list that ours named is what is left
	}
	p.composing.Lock()
	defer p.composing.Unlock()
	kept := p.names[:0]
	seen := false
	for _, l := range p.names {
		seen = seen || l.name == name
		switch {
		case seen, named(l.name) == p.text, l.at.After(before), !p.keeper.store.putLater(p.of, l.name, nil):
			kept = append(kept, l)
		}
	}
	p.names = kept
}
