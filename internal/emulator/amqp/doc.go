// Package amqp is the receiving half of AMQP 1.0: enough of a server for senders
// and for request-response links ($cbs, $management), and a codec that walks
// messages without decoding them. go-amqp decodes and encodes requests and replies, and
// decodes recorded messages when they are read.
//
// One goroutine reads a connection and calls the Backend; replies collect in the
// connection's output buffer, which is sent in one write when the input is used up.
// A second goroutine per connection keeps it alive. There is none per link,
// and one per delivery only while a fault delays its settlement.
//
// Only the reading goroutine uses sessions and links. What other goroutines may do
// (settle, detach, grant credit, freeze, cut) takes the connection's write lock.
package amqp
