package amqp

import "time"

// Append encodes m behind b.
func (m *Message) Append(b []byte) ([]byte, error) {
	var err error
	section := func(code byte, v any) {
		if err == nil {
			b, err = appendValue(append(b, 0x00, 0x53, code), v)
		}
	}
	if h := m.Header; h != nil {
		var at int
		b, at = beginComposite(b, secHeader, 5)
		b = append(appendBool(b, h.Durable), 0x50, h.Priority)
		b = appendUint(b, uint32(h.TTL/time.Millisecond))
		b = appendUint(appendBool(b, h.FirstAcquirer), h.DeliveryCount)
		b = endList(b, at)
	}
	if m.DeliveryAnnotations != nil {
		section(secDeliveryAnnotations, m.DeliveryAnnotations)
	}
	if m.Annotations != nil {
		section(secMessageAnnotations, m.Annotations)
	}
	if m.Properties != nil && err == nil {
		b, err = m.Properties.append(b)
	}
	if m.ApplicationProperties != nil {
		section(secApplicationProps, m.ApplicationProperties)
	}
	for _, data := range m.Data {
		section(secData, data)
	}
	for _, seq := range m.Sequence {
		section(secSequence, seq)
	}
	if m.Value != nil {
		section(secValue, m.Value)
	}
	if m.Footer != nil {
		section(secFooter, m.Footer)
	}
	return b, err
}

func (p *Properties) append(b []byte) ([]byte, error) {
	b, at := beginComposite(b, secProperties, 13)
	b, err := appendValue(b, p.MessageID)
	if err != nil {
		return nil, err
	}
	text := func(s string, symbol bool) {
		switch {
		case s == "":
			b = append(b, 0x40)
		case symbol:
			b = appendSymbol(b, Symbol(s))
		default:
			b = appendString(b, s)
		}
	}
	moment := func(t time.Time) {
		if t.IsZero() {
			b = append(b, 0x40)
		} else {
			b, _ = appendValue(b, t) // can't fail for a time
		}
	}
	if p.UserID == nil {
		b = append(b, 0x40)
	} else {
		b = appendVar(b, 0xa0, p.UserID)
	}
	text(p.To, false)
	text(p.Subject, false)
	text(p.ReplyTo, false)
	if b, err = appendValue(b, p.CorrelationID); err != nil {
		return nil, err
	}
	text(p.ContentType, true)
	text(p.ContentEncoding, true)
	moment(p.AbsoluteExpiryTime)
	moment(p.CreationTime)
	text(p.GroupID, false)
	b = appendUint(b, p.GroupSequence)
	text(p.ReplyToGroupID, false)
	return endList(b, at), nil
}
