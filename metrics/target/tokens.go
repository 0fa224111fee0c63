package target

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	tokens "golang.org/x/oauth2"
)

// NoToken is what may be told of an error of a server of tokens, empty when it is none:
// its status, and nothing that it says. It may be a server that who wrote the object
// could not read.
func NoToken(err error) string {
	for u := (*url.Error)(nil); errors.As(err, &u); {
		err = u.Err
	}
	var refused *tokens.RetrieveError
	switch {
	case errors.As(err, &refused) && refused.Response != nil:
		return fmt.Sprintf("the server of tokens gives none, with status %d", refused.Response.StatusCode)
	case err != nil && (refused != nil || strings.HasPrefix(err.Error(), "oauth2: ")):
		return "the server of tokens gives none"
	}
	return ""
}
