package apiserver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/etcd/client/v3/kubernetes"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/cacher"
	"k8s.io/apiserver/pkg/storage/etcd3"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"
	"k8s.io/apiserver/pkg/storage/value/encrypt/secretbox"
	"k8s.io/client-go/tools/cache"

	"perch/controlplane/api/legal"
	"perch/controlplane/store"
)

// prefix of all Kubernetes objects in etcd.
const prefix = "/registry"

// storageOptions tells the library how to keep objects: in our etcd member, with
// a watch cache in front, Secrets encrypted.
type storageOptions struct {
	rules   *legal.Rules
	objects *store.Store
	secrets value.Transformer
}

var _ generic.RESTOptionsGetter = (*storageOptions)(nil)

// GetRESTOptions answers for the kinds of our own scheme.
func (s *storageOptions) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	versions := s.rules.Scheme.PrioritizedVersionsForGroup(gr.Group)
	if len(versions) == 0 {
		return generic.RESTOptions{}, fmt.Errorf("store %s: group is unknown", gr)
	}
	info, ok := runtime.SerializerInfoForMediaType(s.rules.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return generic.RESTOptions{}, errors.New("BUG: protobuf is not supported")
	}
	version := versions[0]
	codec := s.rules.Codecs.CodecForVersions(info.Serializer, s.rules.Codecs.UniversalDeserializer(), schema.GroupVersions{version}, runtime.InternalGroupVersioner)
	return s.options(gr, codec, version), nil
}

func (s *storageOptions) options(gr schema.GroupResource, codec runtime.Codec, version runtime.GroupVersioner) generic.RESTOptions {
	sc := storagebackend.NewDefaultConfig(prefix, codec)
	sc.EncodeVersioner = version
	sc.Transformer = identity.NewEncryptCheckTransformer()
	if gr == (schema.GroupResource{Resource: "secrets"}) && s.secrets != nil {
		sc.Transformer = s.secrets
	}
	o := generic.RESTOptions{
		StorageConfig:           sc.ForResource(gr),
		EnableGarbageCollection: true,
		DeleteCollectionWorkers: 4,
		ResourcePrefix:          gr.Group + "/" + gr.Resource,
		CountMetricPollPeriod:   time.Minute,
		// Events come in bursts, live an hour and are rarely watched whole.
		Decorator: s.decorator(gr.Resource != "events"),
	}
	if gr.Group == "" {
		o.ResourcePrefix = gr.Resource
	}
	return o
}

// decorator builds a storage on the in-process etcd client: no socket, no
// marshalling of requests.
func (s *storageOptions) decorator(cached bool) generic.StorageDecorator {
	return func(c *storagebackend.ConfigForResource, resourcePrefix string, keyFunc func(runtime.Object) (string, error), newFunc, newList func() runtime.Object,
		attrs storage.AttrFunc, trigger storage.IndexerFuncs, indexers *cache.Indexers,
	) (storage.Interface, factory.DestroyFunc, error) {
		client := *s.objects.Client()
		client.KV = etcd3.NewETCDLatencyTracker(client.KV)
		kube := &kubernetes.Client{Client: &client}
		kube.Kubernetes = kube
		versioner := storage.APIObjectVersioner{}
		raw, err := etcd3.New(kube, s.objects.Compactor(), c.Codec, newFunc, newList, c.Prefix, resourcePrefix, c.GroupResource, c.Transformer,
			c.LeaseManagerConfig, etcd3.NewDefaultDecoder(c.Codec, versioner), versioner)
		if err != nil {
			return nil, nil, fmt.Errorf("open storage of %s: %w", c.GroupResource, err)
		}
		if !cached {
			return raw, raw.Close, nil
		}
		front, err := cacher.NewCacherFromConfig(cacher.Config{
			Storage: raw, Versioner: versioner, GroupResource: c.GroupResource, EventsHistoryWindow: c.EventsHistoryWindow, ResourcePrefix: resourcePrefix,
			KeyFunc: keyFunc, NewFunc: newFunc, NewListFunc: newList, GetAttrsFunc: attrs, IndexerFuncs: trigger, Indexers: indexers, Codec: c.Codec,
		})
		if err != nil {
			raw.Close()
			return nil, nil, fmt.Errorf("open watch cache of %s: %w", c.GroupResource, err)
		}
		d := cacher.NewCacheDelegator(front, raw)
		return d, func() { d.Stop(); front.Stop(); raw.Close() }, nil
	}
}

// definitionOptions keeps CustomResourceDefinitions.
type definitionOptions struct{ *storageOptions }

// GetRESTOptions answers for the one kind of the extension server.
func (d definitionOptions) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	v := apiextensionsv1.SchemeGroupVersion
	return d.options(gr, apiextensionsapiserver.Codecs.LegacyCodec(v), v), nil
}

// customOptions keeps custom resources, always as JSON.
type customOptions struct{ *storageOptions }

// GetRESTOptions answers for any custom resource.
func (c customOptions) GetRESTOptions(gr schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	return c.options(gr, unstructured.UnstructuredJSONScheme, nil), nil
}

// secretsTransformer encrypts with XSalsa20-Poly1305. What was stored in the
// clear before is still read.
func secretsTransformer(file string) (value.Transformer, error) {
	if file == "" {
		return nil, nil
	}
	key, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		err = os.WriteFile(file, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("read secrets key: %w", err)
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("read secrets key %s: %d bytes, want 32", file, len(key))
	}
	return value.NewPrefixTransformers(nil,
		value.PrefixTransformer{Prefix: []byte("k8s:enc:secretbox:v1:perch:"), Transformer: secretbox.NewSecretboxTransformer([32]byte(key))},
		value.PrefixTransformer{Transformer: identity.NewEncryptCheckTransformer()},
	), nil
}
