// Package catchup serves endpoints that are behind: those that have left the shared
// reading of a partition and have a position of their own in it.
//
//	list      who is behind in a partition, and from where: beside the partition's
//	          mark, in the metadata of the ingest group's own commit
//	store     what doesn't fit there: records of the topic positions.topic, each
//	          stored before the commit that names it
//	Keeper    keeps the two in line with the senders' positions: restored when a
//	          partition is assigned, listed with each commit, forgotten when it is
//	          released; and moves positions where a seek was ordered
//	Reader    reads for those that are behind
//
// The commit is the only truth. It is refused once the group has another generation,
// and it has the mark and the list in one: the mark that would make a gap comes with
// the list that says who still has to be served what is in it.
package catchup
